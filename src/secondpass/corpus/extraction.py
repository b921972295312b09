"""Every function of a project's translation units on its own: normalised, hashed, measured.

Within a project each near-duplicate group appears once, by the first of its functions in the order of the
files' names: that of a build on several cores is never the same. An inline function is compiled in every unit
that includes its header; that it is the same one again is seen in the text that LLVM prints for it, before
anything is extracted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from secondpass import ir
from secondpass.corpus.units import Project, Unit
from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.sandbox import Sandbox

_NUMBERED = re.compile(rb" #\d+|![\w.]+ !\d+|!\d+")
"""Attributes and metadata, whose numbers are those of the unit."""


@dataclass(frozen=True, slots=True)
class Record:
    """A function of the corpus.

    Attributes:
        hash: `ir.digest` of the normalised text: its identity.
        group: `ir.group`: what near-duplicates share; of a group one function is kept.
        project, version, file, name: where it comes from.
        language: `c`, `c++`, or `ir` where only IR was given.
        bitcode: the module that defines it alone, marked for size.
        text: the normalised text.
        source: instructions unoptimised.
        oz: instructions at -Oz.
        oz_bytes: bytes of code and data at -Oz.
    """

    hash: str
    group: str
    project: str
    version: str
    file: str
    name: str
    language: str
    bitcode: bytes
    text: str
    source: int
    oz: int = 0
    oz_bytes: int = 0


def extract(project: Project, folder: Path, sandbox: Sandbox) -> tuple[list[Record], list[str]]:
    """All functions of a project that are not near-duplicates of each other.

    Args:
        project: its units; their bitcode lies in `folder`.
        sandbox: measures -Oz.

    Returns:
        The functions, and what went wrong, a line each: modules LLVM refuses, functions that -Oz
        or code generation do not survive.
    """
    records: dict[str, Record] = {}
    problems: list[str] = []
    seen: set[bytes] = set()
    for unit in sorted(project.compiled, key=lambda unit: unit.file):
        try:
            for record in _functions(project, unit, (folder / unit.bitcode).read_bytes(), seen):
                records.setdefault(record.group, record)
        except (LLVMError, OSError) as error:
            problems.append(f"{unit.file}: {' '.join(str(error).split())[:300]}")
    measured: list[Record] = []
    jobs = (Job(it.bitcode, (load().oz_pipeline,), it.group, bytes=True) for it in records.values())
    for job, (outcome,) in sandbox.run(jobs):
        record = records[job.name]
        if outcome.ok and outcome.bytes is not None:
            measured.append(replace(record, oz=outcome.instructions, oz_bytes=outcome.bytes))
        else:
            problems.append(f"{record.file}: {record.name}: -Oz: {outcome.status}, {outcome.message[:300]}")
    measured.sort(key=lambda record: record.hash)
    return measured, problems


def _functions(project: Project, unit: Unit, bitcode: bytes, seen: set[bytes]) -> Iterator[Record]:
    with Module.parse(bitcode, unit.file) as module:
        if unit.language == "ir":
            module.mark_for_size()
        wanted: list[str] = []
        for name, text in module.texts():
            key = hashlib.blake2b(_NUMBERED.sub(b"", text), digest_size=16).digest()
            if key not in seen:
                wanted.append(name)
                seen.add(key)
        if not wanted:
            return
        with module.extract(*wanted) as part:
            for name, function in part.split():
                with function:
                    text = ir.normalise(function.to_text())
                    yield Record(
                        ir.digest(text),
                        ir.group(text),
                        project.name,
                        project.version,
                        unit.file,
                        name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
                        unit.language,
                        function.to_bitcode(),
                        text,
                        function.instruction_count,
                    )
