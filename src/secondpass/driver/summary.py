"""A build log, read: what became of every file and function of a build."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from secondpass.driver.log import Record
from secondpass.driver.machines import learned
from secondpass.errors import InputError
from secondpass.llvm.symbols import readable
from secondpass.page import Page

_SHOWN = 20
"""Functions in a list of the largest."""


@dataclass(frozen=True, slots=True)
class FunctionChange:
    """A function of a file, its bytes at -Oz and now; 0 where it is not there."""

    source: str
    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Summary:
    """What a log says.

    Attributes:
        log: the file.
        records: the last of every object, as they came; of what was linked at once, every one.
        damaged: lines that could not be read.
    """

    log: Path
    records: tuple[Record, ...]
    damaged: int

    @property
    def before(self) -> int:
        """Bytes of text at -Oz."""
        return sum(it.before for it in self.records)

    @property
    def after(self) -> int:
        """Bytes of text as built."""
        return sum(it.after for it in self.records)

    @property
    def seconds(self) -> float:
        """Wall time of all files, one after the other."""
        return sum(it.seconds for it in self.records)

    @cached_property
    def folder(self) -> str:
        """The deepest folder in which all sources lie; empty where there is none but the root."""
        folders = {Path(it.source).parent for it in self.records}
        try:
            common = os.path.commonpath(folders)
        except ValueError:  # a log of somebody else's: names that are not absolute
            return ""
        return "" if common == os.sep else common

    def short(self, source: str) -> str:
        """A source as tables show it: below `folder`."""
        return os.path.relpath(source, self.folder) if self.folder else source

    def gains(self) -> list[FunctionChange]:
        """The functions that lost most bytes."""
        changes = (it for it in self._functions() if it.after < it.before)
        return sorted(changes, key=lambda it: it.after - it.before)[:_SHOWN]

    def largest(self) -> list[FunctionChange]:
        """The largest functions that are left."""
        return sorted(self._functions(), key=lambda it: -it.after)[:_SHOWN]

    def _functions(self) -> Iterable[FunctionChange]:
        for record in self.records:
            for name, (before, after) in record.functions.items():
                yield FunctionChange(record.source, name, before, after)


def read_log(path: Path) -> Summary:
    """Read a build log.

    Raises:
        InputError: it cannot be read, or holds no record.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; SECONDPASS_LOG names it for a build") from error
    found: dict[tuple[str, str | int], Record] = {}
    damaged = 0
    for number, line in enumerate(lines):
        try:
            record = Record.of_json(line)
        except (ValueError, TypeError, AttributeError, LookupError):
            damaged += 1
            continue
        found[record.source, record.output or number] = record
    if not found:
        raise InputError(f"{path}: holds no record of a build; run it with SECONDPASS_LOG={path} and secondpass cc")
    return Summary(path, tuple(found.values()), damaged)


def write_page(summary: Summary, path: Path) -> None:
    """Write the summary as one HTML page.

    Raises:
        InputError: it cannot be written.
    """
    page = Page("What secondpass did in this build")
    before, after = summary.before, summary.after
    page.text(
        f"{len(summary.records):,} objects: {before:,} bytes of text at -Oz, {after:,} as built "
        f"({change(before, after)}), in {summary.seconds:,.1f} s of work."
        + (f" Files are named from {summary.folder} on." if summary.folder else "")
    )
    for title, functions in (
        ("Functions that lost most", summary.gains()),
        ("Largest functions left", summary.largest()),
    ):
        page.section(title)
        page.table(("function", "file", "bytes at -Oz", "as built", "change"), (_row(summary, it) for it in functions))
    page.section("Files", "Bytes of text as llvm-size counts them: code, constants and unwind tables.")
    page.table(
        ("file", "bytes at -Oz", "as built", "change", "s", "effort", "code generation", "note"),
        (
            (
                summary.short(it.source),
                f"{it.before:,}",
                f"{it.after:,}",
                change(it.before, it.after),
                f"{it.seconds:.1f}",
                "cached" if it.cached else str(it.effort),
                described(it.codegen),
                it.note,
            )
            for it in sorted(summary.records, key=lambda it: it.after - it.before)
        ),
    )
    try:
        page.write(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def described(options: Sequence[str]) -> str:
    """Options of code generation, by what they have more or less than those that most modules have.

    There are such for each family of machines: the nearest ones count.
    """
    if not options:
        return ""
    usual = min((it.first for it in learned().values()), key=lambda it: len(set(it) ^ set(options)))
    parts = {"with": set(options) - set(usual), "without": set(usual) - set(options)}
    return "; ".join(["usual", *(f"{word} {' '.join(sorted(some))}" for word, some in parts.items() if some)])


def change(before: int, after: int) -> str:
    """A change in per cent; `=` where there is none, `new` and `gone` where one side is 0."""
    if before == after:
        return "="
    if not before or not after:
        return "gone" if before else "new"
    return f"{(after - before) / before:+.1%}"


def _row(summary: Summary, it: FunctionChange) -> tuple[str, ...]:
    return readable(it.name), summary.short(it.source), f"{it.before:,}", f"{it.after:,}", change(it.before, it.after)
