"""The sandbox: a pool of processes that run pass lists and may crash, hang or eat memory.

    with Sandbox(workers=2) as sandbox:
        for job, outcomes in sandbox.run(jobs): ...

A job is one module with many lists. Workers hold the parsed module; lists are dealt in small batches,
so two workers share one large job and many small jobs alike. A worker that dies is replaced within
milliseconds, its death is the outcome of the list it was at, what it had finished is kept, and
the rest of its batch goes on elsewhere. An outcome is always a value; only the failure of the sandbox
itself raises.

This module schedules; `llvm.worker` is what runs on the other side.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from secondpass.errors import SandboxError
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.wire import HEADER, receive
from secondpass.llvm.worker import REAP, REQUEST, SPAWN, decode, serve_forked

_MOST_LISTS_A_BATCH = 64
_BATCHES_AHEAD = 2
_COALESCE_SECONDS = 0.005
"""How long the parent lets results gather: it shares the cores with the workers."""

_OUT_OF_MEMORY = ("bad_alloc", "out of memory", "MemoryError", "Cannot allocate")


@dataclass(slots=True, eq=False)
class _Progress:
    """A job on its way: which lists are still to be dealt, and the outcomes so far."""

    job: Job
    waiting: deque[int]
    outcomes: list[Outcome | None]
    missing: int
    retried: set[int] = field(default_factory=set[int])


@dataclass(slots=True)
class _Worker:
    """A live worker process as the parent sees it."""

    pid: int
    connection: socket.socket
    holds: _Progress | None = None
    """The job whose module it has parsed."""
    pending: deque[tuple[_Progress, int]] = field(default_factory=deque[tuple[_Progress, int]])
    """The lists it was sent and has not answered, in order."""
    batches: deque[int] = field(default_factory=deque[int])
    """How many of those belong to each batch."""
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)


class _Queue:
    """The jobs not yet finished: begun ones, and the iterable that has more."""

    def __init__(self, source: Iterator[Job]) -> None:
        self._source = source
        self.active: list[_Progress] = []
        self.exhausted = False

    def next_for(self, worker: _Worker, workers: list[_Worker]) -> _Progress | None:
        """The job this worker should take lists from: first the one whose module it holds."""
        if worker.holds is not None and worker.holds.waiting:
            return worker.holds
        held = {id(it.holds) for it in workers}
        orphans = (it for it in self.active if it.waiting and id(it) not in held)  # their worker died
        return next(orphans, None) or self._begin() or self._largest()

    def take_finished(self) -> Iterator[tuple[Job, list[Outcome]]]:
        """Hand out and forget the jobs whose outcomes are all there."""
        for progress in [it for it in self.active if not it.missing]:
            self.active.remove(progress)
            yield progress.job, [outcome for outcome in progress.outcomes if outcome is not None]

    def _begin(self) -> _Progress | None:
        for job in self._source:
            count = len(job.lists)
            progress = _Progress(job, deque(range(count)), [None] * count, count)
            self.active.append(progress)
            if count:
                return progress
        self.exhausted = True
        return None

    def _largest(self) -> _Progress | None:
        largest = max(self.active, key=lambda it: len(it.waiting), default=None)
        return largest if largest is not None and largest.waiting else None


def _started(
    control: socket.socket, timeout: float, memory: int, options: Sequence[str], *, reproducible: bool
) -> subprocess.Popen[bytes]:
    """The server as a fresh process."""
    words = [str(control.fileno()), str(timeout), str(memory), str(int(reproducible)), *options]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "secondpass.llvm.worker", *words],
        pass_fds=[control.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the parent alone, which closes the sandbox
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )


class _Fork:
    """The server as a fork of this process, with what is of use of `subprocess.Popen`."""

    def __init__(self, control: socket.socket, timeout: float, memory: int, options: Sequence[str]) -> None:
        self._code: int | None = None
        self._pid = os.fork()
        if not self._pid:
            serve_forked(control, timeout, memory, options)
        self._ended = os.pidfd_open(self._pid)

    def wait(self, timeout: float | None = None) -> int:
        if self._code is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the sandbox's server", timeout or 0)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
            os.close(self._ended)
        return self._code

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self._code

    def kill(self) -> None:
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)


class Sandbox:
    """A pool of worker processes. One thread uses it at a time; close it, or use `with`.

    Args:
        workers: processes; the number of cores when 0.
        timeout: seconds of wall time a list may take (and a module's parsing).
        memory: bytes a worker may allocate beyond what an idle one uses.
        reproducible: give libLLVM, heaps and stacks the same addresses every time, and every list a process in which
            nothing else has run, for some milliseconds a list. Lists with passes that are known to depend on addresses
            (`vocabulary.BY_ADDRESS`) have the same outcome in any sandbox; this is for what a search does. Without it
            the kernel lays memory out at random, a defence against hostile input.
        fork: start by a fork of this process, which must have no other thread: a few milliseconds where LLVM is
            loaded here already, and 150 less in any case.
        options: of LLVM's own, in force for all that is done (`Library.set_options`).

    Raises:
        SandboxError: the server process does not start.
    """

    def __init__(
        self,
        workers: int = 0,
        timeout: float = 10.0,
        memory: int = 2 << 30,
        *,
        reproducible: bool = False,
        fork: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        if timeout <= 0 or memory <= 0 or workers < 0:
            raise ValueError("timeout and memory must be positive, workers not negative")
        if reproducible and fork:
            raise ValueError("a fork has its parent's addresses, which are not the same every time")
        self.size = workers or len(os.sched_getaffinity(0))
        self._timeout = timeout
        self._control, theirs = socket.socketpair()
        try:
            if fork:
                self._server = _Fork(theirs, timeout, memory, options)
            else:
                self._server = _started(theirs, timeout, memory, options, reproducible=reproducible)
        except OSError as error:
            self._control.close()
            raise SandboxError(f"the sandbox does not start: {error}") from error
        finally:
            theirs.close()
        self._selector = selectors.DefaultSelector()
        self._workers: dict[int, _Worker] = {}
        self._in_step = True
        self.deaths = 0
        """Workers that died, over the sandbox's life."""

    def close(self) -> None:
        """End every process. Safe to call twice."""
        self._control.close()
        for worker in self._workers.values():
            worker.connection.close()
        self._workers.clear()
        self._selector.close()
        try:
            self._server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def compile(self, job: Job) -> list[Outcome]:
        """Run one job's lists over all workers; the outcomes in the lists' order."""
        return next(self.run([job]))[1]

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """Run jobs, taking them from the iterable as workers come free.

        Yields:
            Each job with its outcomes in the order of its lists, as jobs finish.

        Raises:
            SandboxError: the server died.
        """
        queue = _Queue(iter(jobs))
        try:
            while True:
                self._deal(queue)
                yield from queue.take_finished()
                if queue.exhausted and not queue.active:
                    return
                if any(worker.pending for worker in self._workers.values()):
                    self._exchange()
        finally:
            if queue.active:  # the caller left early: what workers still do for it is of no use
                self._kill_all()

    # Dealing

    def _deal(self, queue: _Queue) -> None:
        """Give batches to every worker that can take one."""
        while len(self._workers) < self.size:
            self._spawn()
        workers = list(self._workers.values())
        for worker in sorted(workers, key=lambda it: len(it.batches)):
            while len(worker.batches) < _BATCHES_AHEAD:
                progress = queue.next_for(worker, workers)
                if progress is None:
                    break
                self._assign(worker, progress)

    def _assign(self, worker: _Worker, progress: _Progress) -> None:
        share = -(-len(progress.waiting) // (2 * self.size))
        count = min(len(progress.waiting), max(1, min(_MOST_LISTS_A_BATCH, share)))
        indices = [progress.waiting.popleft() for _ in range(count)]
        job = None if worker.holds is progress else progress.job
        data = pickle.dumps((job, [progress.job.lists[index] for index in indices]), pickle.HIGHEST_PROTOCOL)
        worker.holds = progress
        worker.pending.extend((progress, index) for index in indices)
        worker.batches.append(count)
        worker.outgoing += HEADER.pack(len(data)) + data
        self._flush(worker)

    # Talking

    def _exchange(self) -> None:
        """Wait for workers, read what they found, and see to those that died."""
        started = time.monotonic()
        # Workers end themselves at the time limit, by the kernel's timer; this is only a second line.
        asked = (it.pending[0][0].job.seconds for it in self._workers.values() if it.pending)
        events = self._selector.select(max([self._timeout, *asked]) + 5)
        if not events:
            for worker in [it for it in self._workers.values() if it.pending]:
                self._bury(worker, overdue=True)
        for key, mask in events:
            worker: _Worker = key.data
            if mask & selectors.EVENT_WRITE:
                self._flush(worker)
            if mask & selectors.EVENT_READ and not self._read(worker):
                self._bury(worker)
        rest = _COALESCE_SECONDS - (time.monotonic() - started)
        if rest > 0 and all(len(it.pending) > _MOST_LISTS_A_BATCH // 2 for it in self._workers.values()):
            time.sleep(rest)

    def _flush(self, worker: _Worker) -> None:
        """Send what the socket takes; never block, or two full sockets would wait for each other."""
        try:
            sent = worker.connection.send(worker.outgoing)
            del worker.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it died; the read side notices
            worker.outgoing.clear()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        if self._selector.get_key(worker.connection).events != events:
            self._selector.modify(worker.connection, events, worker)

    def _read(self, worker: _Worker) -> bool:
        """Take in all the outcomes that have arrived; False when the worker is gone."""
        alive = True
        try:
            while True:
                part = worker.connection.recv(1 << 20)
                if not part:
                    alive = False
                    break
                worker.incoming += part
        except BlockingIOError:
            pass
        except OSError:
            alive = False
        at = 0
        while len(worker.incoming) - at >= HEADER.size:
            end = at + HEADER.size + HEADER.unpack_from(worker.incoming, at)[0]
            if len(worker.incoming) < end:
                break
            self._record(worker, decode(bytes(worker.incoming[at + HEADER.size : end])))
            at = end
        del worker.incoming[:at]
        return alive

    def _record(self, worker: _Worker, outcome: Outcome) -> None:
        progress, index = worker.pending.popleft()
        progress.outcomes[index] = outcome
        progress.missing -= 1
        worker.batches[0] -= 1
        if not worker.batches[0]:
            worker.batches.popleft()

    # Births and deaths

    def _spawn(self) -> None:
        with self._question():
            self._control.sendall(REQUEST.pack(SPAWN, 0))
            data, fds, _, _ = socket.recv_fds(self._control, HEADER.size, 1)
            if not data:
                raise self._server_died()
        connection = socket.socket(fileno=fds[0])
        connection.setblocking(False)
        worker = _Worker(HEADER.unpack(data)[0], connection)
        self._workers[worker.pid] = worker
        self._selector.register(connection, selectors.EVENT_READ, worker)

    def _bury(self, worker: _Worker, *, overdue: bool = False) -> None:
        """Reap a dead worker: its death is the outcome of the list it was at, the rest goes back."""
        if overdue:
            os.kill(worker.pid, signal.SIGKILL)
        status, said = self._reap(worker)
        self.deaths += 1
        if not worker.pending:
            return
        progress, index = worker.pending[0]
        own = progress.job.seconds > 0 and not overdue  # work that may be silent for longer has timers of its own
        outcome = _death(status, said, None if own else self._timeout, overdue=overdue)
        if outcome.status is Status.MEMORY and index not in progress.retried:
            # It may have been what earlier lists left behind: a fresh worker decides.
            progress.retried.add(index)
        else:
            self._record(worker, outcome)
        for progress, index in reversed(worker.pending):
            progress.waiting.appendleft(index)

    def _reap(self, worker: _Worker) -> tuple[int, str]:
        self._selector.unregister(worker.connection)
        worker.connection.close()
        del self._workers[worker.pid]
        with self._question():
            self._control.sendall(REQUEST.pack(REAP, worker.pid))
            head = receive(self._control, 8)
            status, size = struct.unpack("<iI", head) if head else (0, 0)
            said = receive(self._control, size) if head else None
            if said is None:
                raise self._server_died()
        return status, said.decode("utf-8", "replace")

    def _kill_all(self) -> None:
        if not self._in_step:
            self.close()  # the server kills them when it is left
            return
        for worker in list(self._workers.values()):
            os.kill(worker.pid, signal.SIGKILL)
            self._reap(worker)

    @contextlib.contextmanager
    def _question(self) -> Generator[None]:
        """A question to the server and all of its answer: the rest of a half one would be taken for the next."""
        self._in_step = False
        try:
            yield
        except OSError as error:
            raise self._server_died() from error
        self._in_step = True

    def _server_died(self) -> SandboxError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._server.wait(timeout=1)  # its sockets close a moment before it has ended
        return SandboxError(
            f"the sandbox's server ended with code {self._server.poll()}; its message is above. "
            "`secondpass doctor` checks the LLVM library it loads"
        )


def _death(status: int, said: str, timeout: float | None, *, overdue: bool) -> Outcome:
    """Why a worker died, from its wait status and the end of its stderr."""
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    line = next((it.strip() for it in reversed(said.splitlines()) if it.strip()), "")
    if number == signal.SIGALRM or overdue:
        limit = f"than {timeout:g} s" if timeout else "than it may"
        return Outcome(Status.TIMEOUT, f"took longer {limit}", last_words=said)
    if any(sign in said for sign in _OUT_OF_MEMORY):
        return Outcome(Status.MEMORY, "took more memory than a worker may have", last_words=said)
    how = signal.Signals(number).name if number else f"exit code {os.waitstatus_to_exitcode(status)}"
    return Outcome(Status.CRASH, f"{line} ({how})" if line else how, last_words=said)
