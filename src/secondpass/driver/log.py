"""The build log: a line of JSON for every file that a build compiled, written by many processes at once.

A line is one write to a file opened for appending, so lines of two processes do not mix, and a build that is killed
leaves whole lines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

LOG = "SECONDPASS_LOG"
_KINDS = {
    **dict.fromkeys(("source", "output", "note"), str),
    **dict.fromkeys(("before", "after", "effort", "cached"), int),
    "seconds": (int, float),
    "functions": dict,
    "codegen": list,
}
"""The kind of each of a line's values."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of one file.

    Attributes:
        source: the file, absolute.
        output: the object; empty for one that was linked at once.
        before: bytes of text (`llvm-size`) of what clang -Oz makes.
        after: of what was written.
        functions: bytes of every function before and after, by name; 0 where it is gone.
        seconds: wall time.
        effort: the level.
        codegen: options of code generation that were taken beside the command's own.
        cached: whether it was taken from the cache.
        note: what was not done, and why.
    """

    source: str
    output: str = ""
    before: int = 0
    after: int = 0
    functions: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    seconds: float = 0.0
    effort: int = 0
    codegen: tuple[str, ...] = ()
    cached: bool = False
    note: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of_json(cls, line: str) -> Self:
        """The record of a line.

        Raises:
            ValueError, TypeError, LookupError, AttributeError: the line is none.
        """
        values: dict[str, Any] = json.loads(line)
        if wrong := [name for name, value in values.items() if not isinstance(value, _KINDS[name])]:
            raise TypeError(f"{wrong[0]} is of another kind")
        record = cls(**values)
        functions = {name: (int(before), int(after)) for name, (before, after) in record.functions.items()}
        return replace(record, functions=functions, codegen=tuple(record.codegen))


def write(record: Record) -> None:
    """Append a record to the log that `SECONDPASS_LOG` names, if it names one.

    Raises:
        OSError: the log cannot be written.
    """
    name = os.environ.get(LOG)
    if not name:
        return
    handle = os.open(Path(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, (record.to_json() + "\n").encode())
    finally:
        os.close(handle)
