"""Results as a person reads them (tables) and as programs do (one JSON document)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from secondpass import __version__
from secondpass.driver.summary import Summary, change
from secondpass.explain import Explanation
from secondpass.llvm.library import Library
from secondpass.llvm.objects import Beside
from secondpass.llvm.passes import PassList
from secondpass.llvm.vocabulary import EXCLUDED, VOCABULARY
from secondpass.optimize import FunctionResult, Result, Size
from secondpass.prompt import Answer, Objective
from secondpass.strategies.base import Attempt

if TYPE_CHECKING:
    from secondpass.corpus.commands import Collection
    from secondpass.corpus.statistics import Distribution, Statistics
    from secondpass.evaluate.evaluation import Evaluation
    from secondpass.model.commands import Made
    from secondpass.model.dry_run import Estimate
    from secondpass.model.train import Trained
    from secondpass.tuner.commands import Tuned
    from secondpass.tuner.outcomes import Outcomes

Document = dict[str, Any]


# optimize


def result_document(results: Sequence[Result], model: str | None, llvm: str) -> Document:
    """One document for a run: the fields of the one input, or `inputs` with a part for each."""
    head: Document = {"version": __version__, "llvm": llvm, "model": model, "objective": str(results[0].objective)}
    if len(results) == 1:
        return head | _input_document(results[0])
    total = [_sum(results, stage) for stage in ("source", "oz", "best")]
    return head | {"totals": _totals(*total), "inputs": [_input_document(result) for result in results]}


def _input_document(result: Result) -> Document:
    return {
        "input": str(result.input),
        "totals": _totals(result.source, result.oz, result.best),
        "passes": list(result.passes.words),
        "origin": result.origin,
        "note": result.note,
        "functions": [_function_document(function) for function in result.functions],
        "seconds": {name: round(seconds, 4) for name, seconds in result.seconds.items()},
    }


def _totals(source: Size, oz: Size, best: Size) -> Document:
    return {
        "instructions": {"source": source.instructions, "oz": oz.instructions, "best": best.instructions},
        "bytes": {"oz": oz.bytes, "best": best.bytes},
        **{f"{name}_bytes": {"oz": before, "best": after} for name, before, after in _beside(oz, best)},
    }


def _function_document(function: FunctionResult) -> Document:
    sizes = {"source": function.source, "oz": function.oz, "best": function.best}
    return {
        "name": function.name,
        "instructions": {stage: size.instructions if size else 0 for stage, size in sizes.items()},
        "bytes": {stage: size.bytes if size else 0 for stage, size in sizes.items() if stage != "source"},
        "origin": function.origin,
        "note": function.note,
        "passes": None if function.passes is None else list(function.passes.words),
        "answers": [_attempt_document(attempt) for attempt in function.attempts],
    }


def _attempt_document(attempt: Attempt) -> Document:
    verdict, answer = attempt.verdict, attempt.verdict.answer
    known = isinstance(answer, Answer)
    return {
        "passes": list(answer.passes.words) if known else [],
        "predicted": {"source": answer.source, "target": answer.target} if known and not attempt.made_by else None,
        "actual": {"source": verdict.source, "target": verdict.target},
        "valid": verdict.valid,
        "verdict": verdict.text,
        "origin": attempt.origin,
        "log_probability": round(attempt.completion.log_probability, 4),
    }


def print_results(results: Sequence[Result], console: Console) -> None:
    """A table for each input, and the sum of several."""
    for result in results:
        console.print(str(result.input), style="italic", markup=False, highlight=False, soft_wrap=True)
        console.print(_result_table(result))
        _print_summary(result, console)
    if len(results) > 1:
        source, oz, best = (_sum(results, stage) for stage in ("source", "oz", "best"))
        console.print(
            f"{len(results)} files: {source.instructions:,} instructions unoptimised, {oz.instructions:,} at -Oz,"
            f" {best.instructions:,} ours ({_change(oz.instructions, best.instructions)});"
            f" {oz.bytes:,} bytes at -Oz, {best.bytes:,} ours ({_change(oz.bytes, best.bytes)})"
        )
        if results[0].objective is Objective.BYTES:
            _print_beside(oz, best, console)


def _result_table(result: Result) -> Table:
    table = Table(show_footer=True, header_style="bold")
    totals = [
        ("function", "left", "total"),
        ("unoptimised", "right", f"{result.source.instructions:,}"),
        ("-Oz", "right", f"{result.oz.instructions:,}"),
        ("ours", "right", f"{result.best.instructions:,}"),
        ("change", "right", _change(result.oz.instructions, result.best.instructions)),
        ("bytes -Oz", "right", f"{result.oz.bytes:,}"),
        ("bytes ours", "right", f"{result.best.bytes:,}"),
    ]
    asked = any(it.attempts or it.note for it in result.functions)
    if asked:
        totals.append(("best list for it alone", "left", ""))
    for name, justify, footer in totals:
        table.add_column(name, justify=justify, footer=footer)  # type: ignore[arg-type]
    left = [it for it in result.functions if it.oz or it.best]
    for it in left:
        oz, best = it.oz, it.best
        table.add_row(
            it.name,
            f"{it.source.instructions:,}",
            *(f"{size.instructions:,}" if size else "gone" for size in (oz, best)),
            _change(oz.instructions, best.instructions) if oz and best else "",
            *(f"{size.bytes:,}" if size and size.bytes is not None else "" for size in (oz, best)),
            *([f"{it.origin} ({it.note})" if it.note else it.origin] if asked else []),
        )
    if gone := [it.source.instructions for it in result.functions if not (it.oz or it.best)]:
        table.add_row(f"{len(gone):,} more, inlined or unused", f"{sum(gone):,}", "gone", "gone")
    data = [
        (whole.bytes or 0) - sum(size.bytes or 0 for size in sizes if size)
        for whole, sizes in ((result.oz, [it.oz for it in left]), (result.best, [it.best for it in left]))
    ]
    if any(data):
        table.add_row("data, and between functions", "", "", "", "", *(f"{it:,}" for it in data))
    return table


def _print_summary(result: Result, console: Console) -> None:
    both = [(it.oz, it.best) for it in result.functions if it.oz and it.best]
    counted = result.objective is Objective.INSTRUCTIONS
    smaller = sum(
        best.instructions < oz.instructions if counted else (best.bytes or 0) < (oz.bytes or 0) for oz, best in both
    )
    model = f" ({result.seconds['model']:.2f} s with the model)" if any(it.attempts for it in result.functions) else ""
    console.print(f"best list for the file: {result.origin}", highlight=False, soft_wrap=True)
    console.print(f"  {result.passes}", highlight=False, soft_wrap=True)
    if result.note:
        console.print(result.note, highlight=False, soft_wrap=True)
    if result.objective is Objective.BYTES:
        _print_beside(result.oz, result.best, console)
    console.print(
        f"{smaller} of {len(both)} functions are smaller than at -Oz; {result.seconds['total']:.2f} s{model}",
        highlight=False,
    )


def _print_beside(oz: Size, best: Size, console: Console) -> None:
    said = (f"{name} {before:,} -> {after:,}" for name, before, after in _beside(oz, best))
    console.print(f"beside these bytes, at -Oz -> ours: {', '.join(said)}", highlight=False, soft_wrap=True)


def _beside(oz: Size, best: Size) -> list[tuple[str, int, int]]:
    """Bytes that the objective does not count, by what they are."""
    before, after = (asdict(it.beside or Beside()) for it in (oz, best))
    return [(name, before[name], after[name]) for name in before]


def _change(before: int | None, after: int | None) -> str:
    if not before or after is None:
        return ""
    return "=" if before == after else f"{(after - before) / before:+.1%}"


def _sum(results: Sequence[Result], stage: str) -> Size:
    sizes: list[Size] = [getattr(result, stage) for result in results]
    beside = sum((it.beside or Beside() for it in sizes), Beside())
    return Size(sum(it.instructions for it in sizes), sum(it.bytes or 0 for it in sizes), beside)


# Builds


def build_document(summary: Summary) -> Document:
    """What a build log says, for programs."""
    return {
        "version": __version__,
        "log": str(summary.log),
        "damaged_lines": summary.damaged,
        "text_bytes": {"oz": summary.before, "best": summary.after},
        "seconds": round(summary.seconds, 3),
        "files": [
            {
                "source": it.source,
                "output": it.output,
                "text_bytes": {"oz": it.before, "best": it.after},
                "seconds": it.seconds,
                "effort": it.effort,
                "cached": it.cached,
                "note": it.note,
                "functions": {name: {"oz": pair[0], "best": pair[1]} for name, pair in it.functions.items()},
            }
            for it in summary.records
        ],
    }


def print_build(summary: Summary, console: Console) -> None:
    """A table of a build's files, and its functions that changed most and are the largest."""
    table = Table(title=str(summary.log), title_justify="left", show_footer=True, header_style="bold")
    total = change(summary.before, summary.after)
    table.add_column("file", footer=f"{len(summary.records):,} files")
    columns = (
        ("text at -Oz", f"{summary.before:,}"),
        ("as built", f"{summary.after:,}"),
        ("change", total),
        ("s", f"{summary.seconds:.1f}"),
        ("effort", ""),
    )
    for name, footer in columns:
        table.add_column(name, justify="right", footer=footer)
    for it in sorted(summary.records, key=lambda it: it.after - it.before):
        sizes = f"{it.before:,}", f"{it.after:,}", change(it.before, it.after)
        table.add_row(it.source, *sizes, f"{it.seconds:.1f}", "cached" if it.cached else str(it.effort))
    console.print(table)
    for title, functions in (("lost most", summary.gains()), ("largest left", summary.largest())):
        table = Table(title=f"functions: {title}", title_justify="left", header_style="bold")
        table.add_column("function", max_width=60, no_wrap=True)
        for name in ("-Oz", "as built", "change"):
            table.add_column(name, justify="right")
        for it in functions[:10]:
            table.add_row(it.name, f"{it.before:,}", f"{it.after:,}", change(it.before, it.after))
        console.print(table)
    for it in summary.records:
        if it.note:
            console.print(f"{it.source}: {it.note}", highlight=False, soft_wrap=True)
    if summary.damaged:
        console.print(f"{summary.damaged} lines of the log could not be read", highlight=False)


# explain


def explanation_document(explanation: Explanation, llvm: str) -> Document:
    """What each element did, for programs."""
    return {
        "version": __version__,
        "llvm": llvm,
        "input": str(explanation.input),
        "passes": list(explanation.passes.words),
        "pipeline": str(explanation.passes),
        "steps": [
            {
                "pass": step.word,
                "status": str(step.outcome.status),
                "message": step.outcome.message,
                "instructions": step.outcome.instructions if step.outcome.ok else None,
                "bytes": step.outcome.bytes,
            }
            for step in explanation.steps
        ],
        "oz": {"instructions": explanation.oz.instructions, "bytes": explanation.oz.bytes},
        "minimal": list(explanation.minimal.words),
    }


def print_explanation(explanation: Explanation, console: Console) -> None:
    """What each element did, for people."""
    table = Table(title=str(explanation.input), title_justify="left", header_style="bold")
    for name, justify in (
        ("pass", "left"),
        ("instructions", "right"),
        ("", "right"),
        ("bytes", "right"),
        ("", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    before = None
    for step in explanation.steps:
        if not step.outcome.ok:
            table.add_row(step.word, f"{step.outcome.status}: {step.outcome.message}")
            break
        now = step.outcome
        table.add_row(
            step.word or "(as it came)",
            f"{now.instructions:,}",
            _step(before.instructions if before else None, now.instructions),
            f"{now.bytes:,}",
            _step(before.bytes if before else None, now.bytes),
        )
        before = now
    table.add_section()
    oz = explanation.oz
    sizes = (f"{oz.instructions:,}", "", f"{oz.bytes:,}", "") if oz.ok else (f"{oz.status}: {oz.message}",)
    table.add_row("-Oz, for comparison", *sizes)
    console.print(table)
    console.print(f"minimal: {_words(explanation.minimal)}", highlight=False, soft_wrap=True)


def _step(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return ""
    return f"{after - before:+,}" if after != before else "="


def _words(passes: PassList) -> str:
    return ",".join(passes.words) or "(no pass changes anything)"


# passes


def vocabulary_document(library: Library) -> Document:
    """The vocabulary and what is left out, for programs."""
    return {
        "llvm": library.version,
        "vocabulary": [
            {
                "name": entry.text,
                "level": str(entry.level),
                "summary": entry.summary,
                "available": library.has_pass(entry.text),
            }
            for entry in VOCABULARY
        ],
        "excluded": [{"name": name, "reason": reason} for name, reason in EXCLUDED.items()],
    }


def print_vocabulary(library: Library, console: Console) -> None:
    """The vocabulary and what is left out, for people."""
    table = Table(title=f"the vocabulary, with LLVM {library.version}", title_justify="left", header_style="bold")
    for name in ("pass", "level", "has it", "what it does"):
        table.add_column(name, overflow="fold")
    for entry in VOCABULARY:
        table.add_row(entry.text, entry.level, "yes" if library.has_pass(entry.text) else "no", entry.summary)
    console.print(table)
    console.print("left out", style="bold")
    for reason in dict.fromkeys(EXCLUDED.values()):
        names = ", ".join(name for name, why in EXCLUDED.items() if why == reason)
        console.print(f"  {reason}: {names}", highlight=False)


# corpus


def print_collection(result: Collection, console: Console) -> None:
    """A line a project, then what the corpus holds."""
    table = Table("project", "version", "units", "functions", "seconds", "note")
    for column in table.columns[2:5]:
        column.justify = "right"
    for it in result.reports:
        note = it.failure or (f"{len(it.problems)} left out: {it.problems[0]}" if it.problems else "")
        table.add_row(
            it.name,
            it.version,
            f"{it.compiled:,} of {it.units:,}" if it.units else "",
            f"{it.functions:,}" if not it.failure else "",
            f"{it.seconds:.0f}",
            f"FAILED: {note}" if it.failure else note,
        )
    console.print(table)
    good = sum(not it.failure for it in result.reports)
    console.print(
        f"{good} of {len(result.reports)} projects; {result.functions:,} functions, none a near-duplicate of "
        f"another, in {result.out}"
    )


def statistics_document(found: Statistics) -> Document:
    """Everything `secondpass corpus stats` knows."""
    return {
        "parts": [asdict(part) for part in found.parts],
        "projects": [asdict(part) for part in found.projects],
        "tokens": asdict(found.lengths) | {"sample": len(found.tokens)},
    }


def print_statistics(found: Statistics, console: Console) -> None:
    """Counts and distributions: the whole, by split, by language, by project."""
    table = Table("", "functions", "projects", "unoptimised", "-Oz", "bytes at -Oz", title="median / 90 % / largest")
    for column in table.columns[1:]:
        column.justify = "right"
    for index, part in enumerate((*found.parts, *found.projects)):
        sizes = (_quantiles(it) for it in (part.source, part.oz, part.oz_bytes))
        projects = f"{part.projects:,}" if index < len(found.parts) else ""
        table.add_row(part.name, f"{part.functions:,}", projects, *sizes, end_section=index == len(found.parts) - 1)
    console.print(table)
    tokens = _quantiles(found.lengths)
    console.print(f"tokens a function, {len(found.tokens):,} functions: {tokens}")


def _quantiles(it: Distribution) -> str:
    return f"{it.median:,.0f} / {it.ninety:,.0f} / {it.most:,.0f}"


# tune


def print_tuning(result: Tuned, console: Console) -> None:
    """What a tuning run found."""
    it = result.report
    console.print(
        f"{it.functions:,} functions: {it.oz:,} {result.objective} at -Oz, {it.best:,} with the best lists "
        f"({it.gain:.2%} fewer); {it.improved:,} functions improved; {it.compiles:,} compiles"
    )
    if it.before:
        console.print(f"{it.before:,} of them had a label before and were not searched again, whatever the options")
    for key, reason in list(it.failed.items())[:10]:
        console.print(f"given up: {key}: {reason}")
    if len(it.failed) > 10:
        console.print(f"and {len(it.failed) - 10:,} more given up")
    console.print(f"labels: {result.out}")


# data, evaluate


def print_outcomes(found: Outcomes, console: Console) -> None:
    """What lists do on many functions."""
    oz = sum(found.oz.values())
    first, best = found.gain(1), found.gain(len(found.lists))
    console.print(f"{len(found.values):,} functions, {len(found.lists)} lists, objective {found.objective}")
    console.print(f"gain over -Oz: the first list {first / (oz or 1):.2%}, the best of all {best / (oz or 1):.2%}")


def print_made(made: Made, console: Console) -> None:
    """What training data holds."""
    manifest = made.manifest
    for split, count in manifest.counts.items():
        left_out = manifest.left_out[split]
        console.print(f"{split}: {count:,} examples, {left_out:,} longer than {manifest.context:,} tokens left out")
    console.print(f"prompts of {made.tokens[0]:.0f} tokens on average, {made.tokens[1]:.0f} in the middle")
    console.print(f"training data: {made.out}")


def print_estimate(found: Estimate, console: Console) -> None:
    """What a training needs."""
    table = Table()
    table.add_column(f"{found.preset}, {found.parameters:,} parameters")
    table.add_column("GiB a device", justify="right")
    for name in ("weights", "gradients", "optimiser", "gathered", "activations", "memory"):
        table.add_row("together" if name == "memory" else name, f"{getattr(found, name) / 2**30:.2f}")
    console.print(table)
    passes = f"{found.accumulation:,} forward passes on each of {found.devices:,} devices"
    console.print(f"a step: {found.step_tokens:,} tokens, {passes}")
    console.print(f"activations: {found.method}; a few GiB of torch's own come on top on a GPU")


def print_training(trained: Trained, console: Console) -> None:
    """Where a finished training's checkpoints are."""
    console.print(f"{trained.parameters:,} parameters, {trained.last}; lowest validation loss: {trained.best}")
    console.print(", ".join(f"{name} {value:.4g}" for name, value in trained.validation.items()))


def print_evaluation(found: Evaluation, console: Console) -> None:
    """The table, where it is a part, and where everything lies."""
    if found.scores:
        console.print(f"{found.functions:,} functions, instructions")
        table = Table()
        table.add_column("")
        headings = (
            "answers", "compiles", "improved", "gain over -Oz", "mean", "of autotuner", "finished", "without -Oz",
            "of autotuner",
        )  # fmt: skip
        for heading in headings:
            table.add_column(heading, justify="right")
        for it in found.scores:
            table.add_row(it.name, *it.cells())
        console.print(table)
    for model, quality in found.qualities.items():
        console.print(
            f"{model}: {quality.too_long:,} functions are too long. First answers to the others: {quality.valid:.1%} "
            f"valid, source count right {quality.source_right:.1%}, target count right {quality.target_right:.1%}, "
            f"the autotuner's list {quality.exact:.1%}, as good as it {quality.as_good:.1%}"
        )
        if quality.code_parses is not None:
            bleu = "" if quality.bleu is None else f", BLEU {quality.bleu:.2f}"
            console.print(f"{model}: IR that parses {quality.code_parses:.1%}{bleu}")
    console.print(f"report: {found.out / 'report.html'}")
