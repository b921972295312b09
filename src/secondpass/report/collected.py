"""A corpus: how it was collected, what it holds."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from secondpass.corpus.commands import Collection
from secondpass.corpus.statistics import Distribution, Statistics
from secondpass.report import Document


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
        "sample": found.sample,
    }


def print_statistics(found: Statistics, console: Console) -> None:
    """Counts and distributions: the whole, by split, by language, by project."""
    title = f"median / 90 % / largest; tokens of {found.sample:,} functions"
    table = Table("", "functions", "projects", "unoptimised", "-Oz", "bytes at -Oz", "tokens", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, part in enumerate((*found.parts, *found.projects)):
        sizes = (_quantiles(it) for it in (part.source, part.oz, part.oz_bytes, part.tokens))
        projects = f"{part.projects:,}" if index < len(found.parts) else ""
        table.add_row(part.name, f"{part.functions:,}", projects, *sizes, end_section=index == len(found.parts) - 1)
    console.print(table)


def _quantiles(it: Distribution) -> str:
    return f"{it.median:,.0f} / {it.ninety:,.0f} / {it.most:,.0f}"
