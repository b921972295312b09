"""A pass list, one pass after the other."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from secondpass import __version__
from secondpass.explain import Explanation
from secondpass.llvm.passes import PassList
from secondpass.report import Document


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
        "minimal": None if explanation.minimal is None else list(explanation.minimal.words),
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
    if explanation.minimal is not None:
        console.print(f"minimal: {_words(explanation.minimal)}", highlight=False, soft_wrap=True)


def _step(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return ""
    return f"{after - before:+,}" if after != before else "="


def _words(passes: PassList) -> str:
    return ",".join(passes.words) or "(no pass changes anything)"
