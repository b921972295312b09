"""What goes into the sandbox and what comes out: plain frozen values that both sides pickle."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from secondpass.llvm.module import FunctionSize


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
    """

    module: bytes
    lists: tuple[str, ...]
    name: str = "module"
    mark_for_size: bool = False
    functions: bool = False
    bytes: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass list did to one module.

    Attributes:
        status: how it ended; the numbers are there for OK alone.
        message: why it did not end well, one line.
        instructions: of all defined functions.
        bytes: of executable sections, where asked for.
        functions: each defined function, where asked for.
        bitcode: the resulting module, where asked for.
        seconds: wall time inside LLVM, parsing included for the first list that a worker runs.
    """

    status: Status
    message: str = ""
    instructions: int = 0
    bytes: int | None = None
    functions: tuple[FunctionSize, ...] = ()
    bitcode: bytes | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the list ran and left a well-formed module."""
        return self.status is Status.OK
