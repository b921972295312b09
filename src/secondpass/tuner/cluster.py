"""A Ray cluster that runs the sandbox's jobs: the same jobs, the same outcomes, on many machines.

    with Cluster("auto", seconds=600, memory=3 << 30) as cluster:
        for job, outcomes in cluster.run(jobs): ...

Jobs travel in batches of a second or two of work; a batch is a Ray task of one CPU. The Ray worker that
runs it keeps a `Sandbox` of one worker, so what kills LLVM does not kill Ray's worker. What does (a machine
that dies, a kernel short of memory) costs the batch: its jobs are sent again one by one, and a job that
takes its worker with it every time has crashed. Ray's own retries are off: they would hide which job it is.

This machine must be a node of the cluster (`ray start`), if need be one without CPUs. Every node needs the
same secondpass and the same LLVM. Nothing else is shared: no file, no folder. Any node may die but this one
and the head: without its head node Ray ends this process within a minute.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Self

from secondpass import __version__
from secondpass.errors import ClusterError
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY_VERSION

_BATCH_SECONDS = 1.5
_MOST_JOBS_A_BATCH = 64
_FIRST_GUESS = 1.0 / 20_000
"""Seconds a byte of bitcode is taken to cost before anything has been measured: rather too many."""
_BATCHES_A_CPU = 2
"""In flight: one that runs, one that waits."""
_MOST_LOSSES = 3
"""Times a job may be lost on the way; from the first on it travels alone."""
_MOST_FAILURES_IN_A_ROW = 100
"""Batches that are lost with none between them that is not: it is the cluster then, not the jobs."""
_LOOK_SECONDS = 3.0
"""How often the cluster is asked for its CPUs."""
_IDLE_SECONDS = 300.0
"""Longest that it may be without any."""
_CANCEL_TIMES, _CANCEL_SECONDS = 5, 0.5
_ANSWER_SECONDS = 5.0
_NODE_SECONDS = 120.0
"""Longest that a node may take to say which versions it has: it starts a Python process for that."""

_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What a gRPC client says first (RFC 9113, section 3.4), with empty settings."""
_SETTINGS = 4


class Cluster:
    """A connection to a Ray cluster. One at a time in a process; close it, or use `with`.

    Args:
        address: `host:port` of the head node, or `auto`: what `RAY_ADDRESS` says, or else this machine's cluster.
        seconds: wall time that a list may take, as in `Sandbox`.
        memory: bytes, as in `Sandbox`.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or a node has other versions.
    """

    def __init__(self, address: str, seconds: float, memory: int) -> None:
        if seconds <= 0 or memory <= 0:
            raise ValueError("seconds and memory must be positive")
        self._limits = seconds, memory
        self._versions = versions()
        self._ray = _connect(address)
        self._closed = False
        self._cpus, self._looked, self._had_cpus = 0, 0.0, 0.0
        try:
            self._task = self._ray.remote(num_cpus=1, max_retries=0)(_remote())
            self._check_nodes()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect; the cluster drops what it still does for this process. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """Run jobs, taking them from the iterable as the cluster has room for them.

        Yields:
            Each job with its outcomes in the order of its lists, as batches finish.

        Raises:
            ClusterError: a node that joined has other versions, every batch fails, or all CPUs have gone for long.
        """
        if self._closed:
            raise ClusterError("the connection to the Ray cluster is closed")
        queue, in_flight = _Queue(iter(jobs)), dict[Any, _Batch]()
        self._looked, self._had_cpus = 0.0, time.monotonic()
        try:
            while True:
                while len(in_flight) < self._room() and (batch := queue.take()) is not None:
                    in_flight[self._send(batch, self._task)] = batch
                if not in_flight:
                    return
                for reference in self._finished(list(in_flight)):
                    yield from self._settle(reference, in_flight.pop(reference), queue)
        finally:
            if in_flight:  # the caller left early: what is done for it is of no use
                self._cancel(list(in_flight))

    # Inside

    def _room(self) -> int:
        """How many batches may be in flight, by the CPUs the cluster has now."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._cpus = int(self._ray.cluster_resources().get("CPU", 0))
            if self._cpus:
                self._had_cpus = now
            elif now - self._had_cpus > _IDLE_SECONDS:
                raise ClusterError(f"the Ray cluster has had no CPU for {_IDLE_SECONDS:.0f} s; add nodes and go on")
        return _BATCHES_A_CPU * max(1, self._cpus)

    def _finished(self, references: list[Any]) -> list[Any]:
        """Those that have finished, after waiting for the first of them for a while."""
        first, _ = self._ray.wait(references, num_returns=1, timeout=_LOOK_SECONDS)
        if not first:
            return []
        return self._ray.wait(references, num_returns=len(references), timeout=0)[0]

    def _send(self, batch: _Batch, task: Any) -> Any:
        data = pickle.dumps(batch.jobs, pickle.HIGHEST_PROTOCOL)
        return task.remote(self._versions, data, *self._limits)

    def _settle(self, reference: Any, batch: _Batch, queue: _Queue) -> Iterator[tuple[Job, list[Outcome]]]:
        """Take in a batch that came back, or did not."""
        try:
            seconds, outcomes = self._accepted(self._ray.get(reference))
        except self._ray.exceptions.RayTaskError as error:  # not the fault of a job: what a job does is an outcome
            queue.put_back(batch)
            if batch.losses >= _MOST_LOSSES:
                raise ClusterError(f"node {error.ip} of the Ray cluster does not work: {_line(error.cause)}") from None
        except self._ray.exceptions.RayError as error:
            if queue.failures > max(_MOST_FAILURES_IN_A_ROW, 4 * self._room()):
                raise ClusterError(f"the Ray cluster loses every batch, the last one by {_line(error)}") from None
            if batch.losses < _MOST_LOSSES:
                queue.put_back(batch)
            else:
                outcome = Outcome(Status.CRASH, f"lost {batch.losses + 1} times, the last time by {_line(error)}")
                yield from ((job, [outcome] * len(job.lists)) for job in batch.jobs)
        else:
            queue.learn(batch, seconds)
            yield from zip(batch.jobs, outcomes, strict=True)

    def _accepted(self, answer: Any) -> Any:
        """What `work` returned, unless its node was the wrong one."""
        theirs, result = answer
        if theirs is None:
            return result
        node = f"node {theirs['node']} of the Ray cluster"
        if "fault" in theirs:
            raise ClusterError(f"{node} cannot run secondpass: {theirs['fault']}")
        name = next(name for name, version in self._versions.items() if theirs.get(name) != version)
        raise ClusterError(
            f"{node} has {name} {theirs.get(name, 'unknown')}, this run needs {self._versions[name]}: "
            "install the same secondpass and LLVM on all nodes"
        )

    def _cancel(self, references: list[Any]) -> None:
        """End tasks. Asked once, Ray misses one that is just being handed to its worker: ask until all have ended."""
        for _ in range(_CANCEL_TIMES):
            for reference in references:
                self._ray.cancel(reference, force=True)
            _, references = self._ray.wait(references, num_returns=len(references), timeout=_CANCEL_SECONDS)
            if not references:
                return

    def _check_nodes(self) -> None:
        """Send every node a batch of nothing: it compares the versions before any work is spent."""
        pinned = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        names: dict[Any, str] = {}
        for node in self._ray.nodes():
            if node["Alive"] and node["Resources"].get("CPU"):
                task = self._task.options(num_cpus=0, scheduling_strategy=pinned(node["NodeID"], soft=False))
                names[self._send(_Batch(()), task)] = node["NodeManagerAddress"]
        end = time.monotonic() + _NODE_SECONDS
        for reference, name in names.items():
            try:
                self._accepted(self._ray.get(reference, timeout=max(0.0, end - time.monotonic())))
            except self._ray.exceptions.GetTimeoutError:
                raise ClusterError(f"node {name} of the Ray cluster says nothing for {_NODE_SECONDS:.0f} s") from None
            except self._ray.exceptions.RayError:  # it died just now; one that does not work shows when it has to
                continue


# The jobs


@dataclass(frozen=True, slots=True)
class _Batch:
    """Jobs that travel together, and how often they were lost on the way."""

    jobs: tuple[Job, ...]
    losses: int = 0

    @property
    def bytes(self) -> int:
        """A rough measure of the work in it."""
        return sum(map(_bytes, self.jobs))


class _Queue:
    """The batches to be sent: those that were lost first, then new ones, cut to size by what earlier ones took."""

    def __init__(self, source: Iterator[Job]) -> None:
        self._source = source
        self._again: deque[_Batch] = deque()
        self._seconds, self._bytes = _FIRST_GUESS, 1.0
        self.failures = 0
        """Batches lost since the last that was not."""

    def take(self) -> _Batch | None:
        """The next batch; None when there is none, for now."""
        if self._again:
            return self._again.popleft()
        jobs: list[Job] = []
        seconds = 0.0
        while seconds < _BATCH_SECONDS and len(jobs) < _MOST_JOBS_A_BATCH:
            job = next(self._source, None)
            if job is None:
                break
            jobs.append(job)
            seconds += _bytes(job) * self._seconds / self._bytes
        return _Batch(tuple(jobs)) if jobs else None

    def learn(self, batch: _Batch, seconds: float) -> None:
        """A batch came back, and this is how long it took."""
        self.failures = 0
        self._seconds = 0.9 * self._seconds + seconds
        self._bytes = 0.9 * self._bytes + batch.bytes

    def put_back(self, batch: _Batch) -> None:
        """A batch was lost: its jobs are sent again one by one."""
        self.failures += 1
        self._again.extend(_Batch((job,), batch.losses + 1) for job in batch.jobs)


def _bytes(job: Job) -> int:
    return (len(job.module) + 1_000) * max(1, len(job.lists))


# On the nodes


def versions() -> dict[str, str]:
    """What must be the same on all nodes for the same job to have the same outcome."""
    return {"secondpass": __version__, "LLVM": load().version, "vocabulary": str(VOCABULARY_VERSION)}


def _remote() -> Callable[..., Any]:
    """The task, as a function that is sent whole: a node may have no secondpass, or another one.

    It returns the versions of a node that does not fit, or else what `work` does.
    """

    def remote(expected: dict[str, str], data: bytes, seconds: float, memory: int) -> Any:
        import platform

        try:
            from secondpass.tuner.cluster import versions

            found = versions()
        except Exception as error:
            found = {"fault": f"{type(error).__name__}: {error}"}
        if found != expected:
            return {"node": platform.node(), **found}, None
        from secondpass.tuner.cluster import work

        return None, work(data, seconds, memory)

    return remote


def work(data: bytes, seconds: float, memory: int) -> tuple[float, list[list[Outcome]]]:
    """What a Ray worker does with a batch: the seconds it took, and the jobs' outcomes.

    Raises:
        SandboxError: the sandbox's server died.
    """
    started = time.perf_counter()
    sandbox = _sandbox(seconds, memory)
    try:
        outcomes = [sandbox.compile(job) for job in pickle.loads(data)]
    except BaseException:  # the next batch gets another
        _sandbox.cache_clear()
        sandbox.close()
        raise
    return time.perf_counter() - started, outcomes


@cache
def _sandbox(seconds: float, memory: int) -> Sandbox:
    return Sandbox(1, seconds, memory, reproducible=True)


# The connection


def _connect(address: str) -> Any:
    """The ray module, connected."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address != "auto":
        _knock(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # what raylets say of dead workers, on our stdout
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise ClusterError("--ray needs Ray: pip install 'secondpass[ray]'") from error
    if ray.is_initialized():
        raise ClusterError("this process is connected to a Ray cluster already; call ray.shutdown() first")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        raise ClusterError(
            f"Ray cluster {address}: {_line(error)}; this machine must be a node of it: ray start --address=HOST:PORT"
        ) from error
    return ray


def _knock(address: str) -> None:
    """See within seconds whether anything like a head node listens: Ray itself would try for minutes."""
    found = re.fullmatch(r"\[?([^/\[\]]+?)\]?:(\d+)", address)
    if not found:
        raise ClusterError(f"Ray cluster {address}: give the head node's HOST:PORT, or auto")
    try:
        with socket.create_connection((found[1], int(found[2])), _ANSWER_SECONDS) as connection:
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(4)
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"Ray cluster {address}: cannot be reached ({_line(error)}); is it running, and is this its head node?"
        ) from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and (len(answer) < 4 or answer[3] != _SETTINGS):
        raise ClusterError(f"Ray cluster {address}: what listens there is not Ray; the head node's port is mostly 6379")


def _line(error: BaseException) -> str:
    """An error as one line, no longer than a line should be."""
    text = " ".join(str(error).split())[:160].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
