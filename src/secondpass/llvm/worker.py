"""The sandbox's other side: a server that has libLLVM loaded, and the workers it forks.

`python -m secondpass.llvm.worker FD SECONDS BYTES REPRODUCIBLE [OPTION...]` is started by `llvm.sandbox` with a Unix
socket. The server loads LLVM once and forks a worker in a few milliseconds whenever it is asked to; it never runs a
pass itself, so nothing can kill it. A worker runs what comes over its own socket. Its stderr is a file in memory that
outlives it: LLVM's last message is read from there after a crash.

Server requests: `SPAWN` answers the worker's pid with its socket; `REAP pid` waits for a worker that
is known to be dead or killed and answers its exit status and last words. The end of the control
socket ends everything.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from secondpass.errors import LLVMError
from secondpass.llvm.fresh import Room, begin_fork, in_fork
from secondpass.llvm.jobs import Job, Outcome, Prepared, Status, Work
from secondpass.llvm.library import load
from secondpass.llvm.module import FunctionSize, Module
from secondpass.llvm.objects import Beside
from secondpass.llvm.vocabulary import BY_ADDRESS
from secondpass.llvm.wire import HEADER, messages, receive, send

REQUEST = struct.Struct("<cI")
NUMBERS = struct.Struct("<Iqd")
SPAWN, REAP = b"S", b"R"
Sizes = tuple[int | None, Beside | None, tuple[FunctionSize, ...]]
"""As `Module.native_sizes`; None for what was not asked for."""
LAST_WORDS = 1 << 16
"""Bytes: LLVM may say much when it dies, and what ran then is said before."""

_TOP = 0x7000_0000_0000
"""Address under which the kernel shall put everything: below all that it places at random on a machine with 47 bits of
user addresses."""
_MAP_FIXED_NOREPLACE, _MAP_NORESERVE = 0x100000, 0x4000


def serve(
    control: socket.socket, seconds: float, memory: int, options: Sequence[str], *, reproducible: bool = False
) -> None:
    """Fork and reap workers until the control socket closes; LLVM's own options are in force in all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if options:
        load().set_options(options)
    load().vocabulary()  # what LLVM makes at its first use lies in the same place for all
    gc.freeze()  # forked workers share these pages
    last_words: dict[int, int] = {}
    while (request := receive(control, REQUEST.size)) is not None:
        kind, pid = REQUEST.unpack(request)
        if kind == SPAWN:
            ours, theirs = socket.socketpair()
            sink = os.memfd_create("stderr")
            pid = os.fork()
            if pid == 0:
                control.close()
                ours.close()
                _become_worker(theirs, sink, list(last_words.values()), seconds, memory, reproducible)
            theirs.close()
            last_words[pid] = sink
            socket.send_fds(control, [HEADER.pack(pid)], [ours.fileno()])
            ours.close()
        else:
            _, status = os.waitpid(pid, 0)
            said = _tail(last_words.pop(pid))
            control.sendall(struct.pack("<iI", status, len(said)) + said)
    for pid in last_words:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def serve_forked(control: socket.socket, seconds: float, memory: int, options: Sequence[str]) -> NoReturn:
    """`serve` in a fork of the sandbox's process, without what it does not need of that."""
    code = 1
    try:
        os.setsid()  # Ctrl-C reaches the parent alone
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for fd in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
            if fd > 2 and fd != control.fileno():
                with suppress(OSError):  # the listing itself was one
                    os.close(fd)
        serve(control, seconds, memory, options)
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _take_random_addresses() -> None:
    """Reserve what is free between `_TOP` and the highest library, so that all that comes is put below, from the top.

    libLLVM, heaps and stacks then lie where they lay the last time, although the kernel begins at a random address.
    Nothing is written there, so it costs no memory. (personality(2) has a flag for this, which containers forbid.)
    """
    if sys.maxsize < _TOP:
        return
    libc = ctypes.CDLL(None)
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mmap.restype = ctypes.c_void_p
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED_NOREPLACE
    free = _TOP
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(address, 16) for address in line.split()[0].split("-"))
        if line.endswith("[stack]"):  # it grows downwards
            break
        if start > free:
            libc.mmap(free, start - free, 0, flags, -1, 0)  # where it fails, addresses stay random
        free = max(free, end)


def _tail(sink: int) -> bytes:
    size = os.fstat(sink).st_size
    said = os.pread(sink, LAST_WORDS, max(0, size - LAST_WORDS))
    os.close(sink)
    return said


def _become_worker(
    connection: socket.socket, sink: int, others: list[int], seconds: float, memory: int, reproducible: bool
) -> None:
    """What a fresh fork does; never returns into the server's loop."""
    code = 1
    try:
        begin_fork()
        os.dup2(sink, 2)
        for fd in (sink, *others):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = [it for it in resource.getrlimit(resource.RLIMIT_AS) if it != resource.RLIM_INFINITY]
        most = min([used + memory, *limits])  # a limit of the user's holds
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        gc.disable()  # nothing here makes cycles, and a collection in a batch is lost time
        _work(connection, seconds, reproducible)
        code = 0
    except MemoryError:
        os.write(2, b"out of memory")
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _work(connection: socket.socket, seconds: float, reproducible: bool) -> None:
    """Answer batches: a pickled `(Job or None, lists)`, None meaning the module of the batch before."""
    module: Module | LLVMError | None = None
    job = Job(b"", ())
    each: Work | None = None
    measured: dict[bytes, Sizes] = {}

    def serve_one(message: bytes) -> None:
        job, pipeline = pickle.loads(message)
        _send(connection, _guarded(seconds, _alone, job, job.module, pipeline))

    room = Room(serve_one)
    for message in messages(connection):
        new_job, lists = pickle.loads(message)
        started = time.perf_counter()
        if new_job is not None:
            if isinstance(module, Module):
                module.close()
            job, measured = new_job, {}
            each = job.each or (partial(_alone, job) if reproducible else None)
            module = None if each else _guarded(seconds, _parse, job)
        for pipeline in lists:
            if each is not None:
                _apart(connection, seconds, each, job.module, pipeline)
            elif any(name in pipeline for name in BY_ADDRESS):
                room.run(pickle.dumps((replace(job, lists=()), pipeline)))
            else:
                _send(connection, _guarded(seconds, _outcome, module, pipeline, job, started, measured))
            started = time.perf_counter()


def _apart(connection: socket.socket, seconds: float, each: Work, module: bytes, item: str) -> None:
    """Do a job's own work, or run a list, in a fork of this process."""
    if isinstance(each, Prepared):
        each.prepare()
    in_fork(lambda: _send(connection, _guarded(seconds, each, module, item)))


def _guarded(seconds: float, work: Any, *arguments: Any) -> Any:
    """Call `work`; the kernel ends the process by SIGALRM when it takes longer than `seconds`."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _send(connection: socket.socket, outcome: Outcome) -> None:
    send(connection, encode(outcome))


def encode(outcome: Outcome) -> bytes:
    """An outcome for the wire: most are three numbers, and pickling them would take longer than a short list."""
    if type(outcome) is Outcome and outcome.ok and not outcome.functions and outcome.bitcode is None:
        return NUMBERS.pack(outcome.instructions, -1 if outcome.bytes is None else outcome.bytes, outcome.seconds)
    return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)


def decode(data: bytes) -> Outcome:
    """The inverse of `encode`; a pickle is never as short as the numbers."""
    if len(data) == NUMBERS.size:
        instructions, size, seconds = NUMBERS.unpack(data)
        return Outcome(Status.OK, "", instructions, None if size < 0 else size, seconds=seconds)
    return pickle.loads(data)


def _parse(job: Job) -> Module | LLVMError:
    try:
        module = Module.parse(job.module, job.name)
        if job.mark_for_size:
            module.mark_for_size()
        return module
    except LLVMError as error:
        return error


def _outcome(
    module: Module | LLVMError, pipeline: str, job: Job, started: float, measured: dict[bytes, Sizes]
) -> Outcome:
    """What a list does.

    Args:
        module: unoptimised; or why there is none.
        pipeline: the list.
        job: what is asked of it.
        started: when LLVM began on it, parsing the module for the first one.
        measured: the sizes of what other lists made of the same module.
    """
    if isinstance(module, LLVMError):
        return Outcome(Status.INVALID, _line(module))
    with module.clone() as copy:
        try:
            if pipeline:
                copy.run(pipeline)
        except LLVMError as error:
            return Outcome(Status.INVALID, _line(error))
        try:
            copy.verify()
            size, beside, functions = measured_sizes(copy, job, measured)
        except LLVMError as error:
            return Outcome(Status.BROKEN, _line(error))
        instructions = copy.instruction_count
        bitcode = copy.to_bitcode() if job.keep else None
    seconds = time.perf_counter() - started
    return Outcome(Status.OK, "", instructions, size, functions, bitcode, seconds, beside=beside)


def measured_sizes(module: Module, job: Job, measured: dict[bytes, Sizes]) -> Sizes:
    """The sizes that a job asks for.

    Args:
        module: what a list left.
        job: what is asked.
        measured: the sizes of what its other lists left, to which this one's are added. A third to a half of the lists
            leave the same as another, and native code takes longer than most lists.
    """
    if not job.bytes:
        return None, None, module.functions() if job.functions else ()
    key = b"" if len(job.lists) == 1 else module.fingerprint()
    if key not in measured:
        measured[key] = module.native_sizes() if job.functions else (module.native_size, None, ())
    return measured[key]


def _alone(job: Job, _module: bytes, pipeline: str) -> Outcome:
    """What a list does to a module that nothing else was done to before."""
    started = time.perf_counter()
    module = _parse(job)
    outcome = _outcome(module, pipeline, replace(job, lists=(pipeline,)), started, {})
    if isinstance(module, Module):
        module.close()
    return outcome


def _line(error: LLVMError) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    fd, seconds, memory, fixed, *options = sys.argv[1:]
    reproducible = fixed == "1"
    if reproducible:
        _take_random_addresses()
    serve(socket.socket(fileno=int(fd)), float(seconds), int(memory), options, reproducible=reproducible)
