"""What goes into the sandbox and what comes out: plain frozen values that both sides pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from secondpass.llvm.module import FunctionSize
from secondpass.llvm.objects import Beside

Work = Callable[[bytes, str], "Outcome"]
"""What a job does of its own: module and item in, outcome out."""


@runtime_checkable
class Prepared(Protocol):
    """Work that goes faster after a preparation, which serves many jobs. No pass may run in it."""

    def prepare(self) -> None:
        """Fill caches."""
        ...


class Status(StrEnum):
    """How one pass list ended."""

    OK = "ok"
    INVALID = "invalid"
    """LLVM refused the module or the list."""
    BROKEN = "broken"
    """The list left IR that does not verify, or that code generation refuses: a bug in LLVM."""
    CRASH = "crash"
    """The process died; the message is LLVM's last word."""
    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Job:
    """One module, and the pass lists to run on it, each on a fresh copy.

    Attributes:
        module: IR text or bitcode.
        lists: pipelines in LLVM's syntax; the empty string runs nothing.
        name: what messages call the module.
        mark_for_size: mark its functions as -Oz would (`Module.mark_for_size`) before anything runs.
        functions: report every function's instructions (and bytes, with `bytes`).
        bytes: generate native code and report its size.
        keep: return the resulting bitcode.
        each: what to do with the module and one item of `lists` instead of compiling it; a function that
            pickles. It runs in a process of its own, and may start its interval timer anew for each step that it
            takes. One that is `Prepared` first fills the caches of the worker that this process is forked from.
        seconds: the longest time such work may be silent, where that is more than the sandbox gives a list.
    """

    module: bytes
    lists: tuple[str, ...]
    name: str = "module"
    mark_for_size: bool = False
    functions: bool = False
    bytes: bool = False
    keep: bool = False
    each: Work | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass list did to one module.

    Attributes:
        status: how it ended; the numbers are there for OK alone.
        message: why it did not end well, one line.
        instructions: of all defined functions.
        bytes: of code and data, where asked for.
        functions: each defined function, where asked for.
        bitcode: the resulting module, where asked for.
        seconds: wall time inside LLVM, parsing included for the first list that a worker runs.
        last_words: the end of what the process wrote to stderr before it died.
        beside: bytes beside `bytes`, where both `functions` and `bytes` were asked for.
    """

    status: Status
    message: str = ""
    instructions: int = 0
    bytes: int | None = None
    functions: tuple[FunctionSize, ...] = ()
    bitcode: bytes | None = None
    seconds: float = 0.0
    last_words: str = ""
    beside: Beside | None = None

    @property
    def ok(self) -> bool:
        """Whether the list ran and left a well-formed module."""
        return self.status is Status.OK
