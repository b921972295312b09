"""The passes that lists may use."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from secondpass.llvm.library import Library
from secondpass.llvm.vocabulary import EXCLUDED, VOCABULARY
from secondpass.report import Document


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
