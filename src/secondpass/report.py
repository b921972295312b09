"""Results as a person reads them (tables) and as programs do (one JSON document)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from secondpass import __version__
from secondpass.explain import Explanation
from secondpass.llvm.library import Library
from secondpass.llvm.passes import PassList
from secondpass.llvm.vocabulary import EXCLUDED, VOCABULARY
from secondpass.optimize import FunctionResult, Result, Size
from secondpass.prompt import Answer
from secondpass.strategies.answers import Attempt

Document = dict[str, Any]


# optimize


def result_document(results: Sequence[Result], model: str, llvm: str) -> Document:
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
        "functions": [_function_document(function) for function in result.functions],
        "seconds": {name: round(seconds, 4) for name, seconds in result.seconds.items()},
    }


def _totals(source: Size, oz: Size, best: Size) -> Document:
    return {
        "instructions": {"source": source.instructions, "oz": oz.instructions, "best": best.instructions},
        "bytes": {"oz": oz.bytes, "best": best.bytes},
    }


def _function_document(function: FunctionResult) -> Document:
    sizes = {"source": function.source, "oz": function.oz, "best": function.best}
    return {
        "name": function.name,
        "instructions": {stage: size.instructions if size else 0 for stage, size in sizes.items()},
        "bytes": {stage: size.bytes if size else 0 for stage, size in sizes.items() if stage != "source"},
        "origin": function.origin,
        "note": function.note,
        "answers": [_attempt_document(attempt) for attempt in function.attempts],
    }


def _attempt_document(attempt: Attempt) -> Document:
    verdict, answer = attempt.verdict, attempt.verdict.answer
    known = isinstance(answer, Answer)
    return {
        "passes": list(answer.passes.words) if known else [],
        "predicted": {"source": answer.source, "target": answer.target} if known else None,
        "actual": {"source": verdict.source, "target": verdict.target},
        "valid": verdict.valid,
        "verdict": verdict.text,
        "origin": attempt.origin,
        "log_probability": round(attempt.completion.log_probability, 4),
    }


def print_results(results: Sequence[Result], console: Console) -> None:
    """A table for each input, and the sum of several."""
    for result in results:
        console.print(_result_table(result))
        _print_summary(result, console)
    if len(results) > 1:
        source, oz, best = (_sum(results, stage) for stage in ("source", "oz", "best"))
        console.print(
            f"{len(results)} files: {source.instructions:,} instructions unoptimised, {oz.instructions:,} at -Oz,"
            f" {best.instructions:,} ours ({_change(oz.instructions, best.instructions)});"
            f" {oz.bytes:,} bytes at -Oz, {best.bytes:,} ours ({_change(oz.bytes, best.bytes)})"
        )


def _result_table(result: Result) -> Table:
    table = Table(title=str(result.input), title_justify="left", show_footer=True, header_style="bold")
    totals = [
        ("function", "left", "total"),
        ("unoptimised", "right", f"{result.source.instructions:,}"),
        ("-Oz", "right", f"{result.oz.instructions:,}"),
        ("ours", "right", f"{result.best.instructions:,}"),
        ("change", "right", _change(result.oz.instructions, result.best.instructions)),
        ("bytes -Oz", "right", f"{result.oz.bytes:,}"),
        ("bytes ours", "right", f"{result.best.bytes:,}"),
        ("best list for it alone", "left", ""),
    ]
    for name, justify, footer in totals:
        table.add_column(name, justify=justify, footer=footer)  # type: ignore[arg-type]
    for it in result.functions:
        oz, best = it.oz, it.best
        table.add_row(
            it.name,
            f"{it.source.instructions:,}",
            *(f"{size.instructions:,}" if size else "gone" for size in (oz, best)),
            _change(oz.instructions, best.instructions) if oz and best else "",
            *(f"{size.bytes:,}" if size and size.bytes is not None else "" for size in (oz, best)),
            f"-Oz ({it.note})" if it.note else it.origin,
        )
    return table


def _print_summary(result: Result, console: Console) -> None:
    improved = sum(it.origin != "-Oz" for it in result.functions)
    console.print(f"best list for the file: {result.origin}", highlight=False, soft_wrap=True)
    console.print(f"  {result.passes}", highlight=False, soft_wrap=True)
    console.print(
        f"{improved} of {len(result.functions)} functions have a list of their own that beats -Oz;"
        f" {result.seconds['total']:.2f} s ({result.seconds['model']:.2f} s with the model)",
        highlight=False,
    )


def _change(before: int | None, after: int | None) -> str:
    if not before or after is None:
        return ""
    return "=" if before == after else f"{(after - before) / before:+.1%}"


def _sum(results: Sequence[Result], stage: str) -> Size:
    sizes: list[Size] = [getattr(result, stage) for result in results]
    return Size(sum(it.instructions for it in sizes), sum(it.bytes or 0 for it in sizes))


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
    table.add_row("-Oz, for comparison", f"{explanation.oz.instructions:,}", "", f"{explanation.oz.bytes:,}", "")
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
