"""Processes that each hold a model and answer questions, one at a time; a question that stops one is named.

A model may eat the machine's memory, and the kernel then kills its process without a word. So each process has one
question at a time, and a pipe of its own: when the pipe ends, it is known who died, of what, and at which question.
What the others are at is still taken, then the error is raised: nothing that was computed is lost. A process ends
when its pipe does, so none outlives a parent that is killed.

The module knows questions and results; it knows nothing of models.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from secondpass.errors import EngineStopped, SecondpassError

Question = TypeVar("Question")
Result = TypeVar("Result")

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
    question: Any = None
    """What it is at; None for nothing."""

    def give(self, question: Any) -> None:
        """Let it answer a question next; None for no more."""
        self.question = question
        if question is not None:
            with suppress(OSError):  # it is dead, and `take` will say so
                self.connection.send(question)

    def take(self) -> Any:
        """What it sent, or a `_Fault` that says how it died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return _Fault(_death(self.process.exitcode), 1)


def answer_all(
    name: str,
    begin: Callable[[], Callable[[Question], Result]],
    questions: Iterable[Question],
    workers: int,
    called: Callable[[Question], str],
) -> Iterator[Result]:
    """Answer every question, several at once; the results as they come.

    Args:
        name: of what answers, for errors.
        begin: called in each process, once: loads what is needed, and gives what answers. Sent there by pickle, as
            questions are and results come back; none of either is None.
        questions: taken when a process is free for them.
        workers: processes.
        called: what to call a question in an error.

    Raises:
        EngineStopped: a process died or ran out of memory, or what answers raised an error. All that was computed
            until then has been given out.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers answer nothing: at least one is needed")
    waiting = iter(questions)
    pool: list[_Worker] = []
    stopped: EngineStopped | None = None
    try:
        for question in islice(waiting, workers):
            pool.append(_start(begin))
            pool[-1].give(question)
        while busy := {it.connection: it for it in pool if it.question is not None}:
            for connection in wait(list(busy)):
                worker = busy[connection]  # pyright: ignore[reportArgumentType]
                found = worker.take()
                if isinstance(found, _Fault):
                    stopped = stopped or _stopped(name, called(worker.question), found)
                worker.give(None if stopped else next(waiting, None))
                if not isinstance(found, _Fault):
                    yield found
        if stopped:
            raise stopped
    finally:
        _end(pool)


def _start(begin: Callable[[], Callable[[Any], Any]]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, begin), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _end(pool: Sequence[_Worker]) -> None:
    for worker in pool:
        worker.connection.close()
        if worker.question is not None:  # the caller left early: nobody waits for this one
            worker.process.terminate()
    for worker in pool:
        worker.process.join(_PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _stopped(name: str, question: str, fault: _Fault) -> EngineStopped:
    return EngineStopped(f"{name}, at {question}: {fault.text}", fault.exit_code)


def _death(code: int) -> str:
    if code >= 0:
        return f"the process of the model ended with exit code {code}, its message is above"
    text = f"the process of the model was killed by {signal.Signals(-code).name}"
    return f"{text} (out of memory? fewer --workers need less)" if -code == signal.SIGKILL else text


# In such a process


def _serve(connection: Connection, begin: Callable[[], Callable[[Any], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answer: Callable[[Any], Any] | None = None
    with suppress(EOFError, BrokenPipeError):  # the parent is done, or gone
        while True:
            question = connection.recv()
            try:
                answer = answer or begin()
                found = answer(question)
            except SecondpassError as error:
                found = _Fault(str(error), error.exit_code)
            except MemoryError:
                found = _Fault("the model ran out of memory; fewer --workers need less", 1)
            connection.send(found)
