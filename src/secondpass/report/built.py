"""A build by `secondpass cc`."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from secondpass import __version__
from secondpass.driver.summary import Summary, change
from secondpass.llvm.symbols import readable
from secondpass.report import Document


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
    title = f"{summary.log}, files below {summary.folder}" if summary.folder else str(summary.log)
    table = Table(title=title, title_justify="left", show_footer=True, header_style="bold")
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
        table.add_row(summary.short(it.source), *sizes, f"{it.seconds:.1f}", "cached" if it.cached else str(it.effort))
    console.print(table)
    for title, functions in (("lost most", summary.gains()), ("largest left", summary.largest())):
        table = Table(title=f"functions: {title}", title_justify="left", header_style="bold")
        table.add_column("function", max_width=60, no_wrap=True)
        for name in ("-Oz", "as built", "change"):
            table.add_column(name, justify="right")
        for it in functions[:10]:
            table.add_row(readable(it.name), f"{it.before:,}", f"{it.after:,}", change(it.before, it.after))
        console.print(table)
    for it in summary.records:
        if it.note:
            console.print(f"{it.source}: {it.note}", highlight=False, soft_wrap=True)
    if summary.damaged:
        console.print(f"{summary.damaged} lines of the log could not be read", highlight=False)
