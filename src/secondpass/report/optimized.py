"""Files that were made smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from secondpass import __version__
from secondpass.commands import Optimized
from secondpass.llvm.objects import Beside
from secondpass.llvm.symbols import readable
from secondpass.optimize import FunctionResult, Result, Size
from secondpass.prompt import Answer, Objective
from secondpass.report import Document
from secondpass.strategies.base import Attempt

_WIDEST = 80
"""Columns of a name: those of C++ templates may be hundreds of characters long."""


def result_document(done: Optimized, llvm: str) -> Document:
    """One document for a run: the fields of the one input, or `inputs` with a part for each, and what was `refused`."""
    results = done.results
    head: Document = {"version": __version__, "llvm": llvm, "model": done.model, "objective": str(results[0].objective)}
    if len(results) + len(done.refused) == 1:
        return head | _input_document(results[0])
    total = [_sum(results, stage) for stage in ("source", "oz", "best")]
    inputs = [_input_document(result) for result in results]
    return head | {"totals": _totals(*total), "inputs": inputs, "refused": [str(it) for it in done.refused]}


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
        totals.append(("fewest instructions alone", "left", ""))
    for name, justify, footer in totals:
        table.add_column(name, justify=justify, footer=footer, max_width=_WIDEST, overflow="fold")  # type: ignore[arg-type]
    left = [it for it in result.functions if it.oz or it.best]
    for it in left:
        oz, best = it.oz, it.best
        table.add_row(
            readable(it.name),
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
