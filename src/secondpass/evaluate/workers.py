"""Processes that each hold a model and answer functions, one at a time; whoever stops one is named.

A model may eat the machine's memory, and the kernel then kills its process without a word. So each process has one
function at a time, and a pipe of its own: when the pipe ends, it is known who died, of what, and at which function.
What the others are at is still taken, then the error is raised: nothing that was computed is lost. A process ends
when its pipe does, so none outlives a parent that is killed.

The module knows functions and results; it knows nothing of models.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from secondpass.errors import EngineStopped, SecondpassError
from secondpass.evaluate.cases import Case, Trials

Answer = Callable[[Case], Trials]
Begin = Callable[[], Answer]
"""Called in each process, once: loads what is needed, and gives what answers a function. It is sent there by pickle."""

_PATIENCE = 5.0
"""Seconds that a process is given to end."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a process could not answer."""

    text: str
    exit_code: int


@dataclass(slots=True, eq=False)
class _Worker:
    process: Any
    connection: Connection
    case: Case | None = None
    """What it is at."""

    def give(self, case: Case | None) -> None:
        """Let it answer a function next; None for no more."""
        self.case = case
        if case is not None:
            with suppress(OSError):  # it is dead, and `take` will say so
                self.connection.send(case)

    def take(self) -> Trials | _Fault:
        """What it sent, or how it died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return _Fault(_death(self.process.exitcode), 1)


def answer_all(name: str, begin: Begin, cases: Sequence[Case], workers: int) -> Iterator[Trials]:
    """Answer every function, several at once; the results as they come.

    Args:
        name: of the method, for errors.
        begin: makes a process ready.
        cases: the functions.
        workers: processes.

    Raises:
        EngineStopped: a process died or ran out of memory, or the engine raised an error. All that was computed until
            then has been given out.
    """
    waiting = iter(cases)
    pool = [_start(begin) for _ in range(min(workers, len(cases)))]
    stopped: EngineStopped | None = None
    try:
        for worker in pool:
            worker.give(next(waiting, None))
        while busy := {it.connection: it for it in pool if it.case is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # pyright: ignore[reportArgumentType]
                found = worker.take()
                if isinstance(found, _Fault) and worker.case is not None:
                    stopped = stopped or _stopped(name, worker.case, found)
                worker.give(None if stopped else next(waiting, None))
                if isinstance(found, Trials):
                    yield found
        if stopped:
            raise stopped
    finally:
        _end(pool)


def _start(begin: Begin) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, begin), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _end(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        worker.connection.close()
        if worker.case is not None:  # the caller left early: nobody waits for this one
            worker.process.terminate()
    for worker in pool:
        worker.process.join(_PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _stopped(name: str, case: Case, fault: _Fault) -> EngineStopped:
    at = f"{name}, at function {case.key} of {case.project}"
    return EngineStopped(f"{at}: {fault.text}; what was measured is kept, the same command goes on", fault.exit_code)


def _death(code: int) -> str:
    if code >= 0:
        return f"the process of the model ended with exit code {code}, its message is above"
    text = f"the process of the model was killed by {signal.Signals(-code).name}"
    return f"{text} (out of memory? fewer --workers need less)" if -code == signal.SIGKILL else text


# In such a process


def _serve(connection: Connection, begin: Begin) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answer: Answer | None = None
    with suppress(EOFError, BrokenPipeError):  # the parent is done, or gone
        while True:
            case = connection.recv()
            try:
                answer = answer or begin()
                found = answer(case)
            except SecondpassError as error:
                found = _Fault(str(error), error.exit_code)
            except MemoryError:
                found = _Fault("the model ran out of memory; fewer --workers need less", 1)
            connection.send(found)
