"""The sandbox's other side: a server that has libLLVM loaded, and the workers it forks.

`python -m secondpass.llvm.worker FD SECONDS BYTES` is started by `llvm.sandbox` with a Unix socket.
The server loads LLVM once and forks a worker in a few milliseconds whenever it is asked to; it never
runs a pass itself, so nothing can kill it. A worker runs what comes over its own socket. Its stderr is
a file in memory that outlives it: LLVM's last message is read from there after a crash.

Server requests: `SPAWN` answers the worker's pid with its socket; `REAP pid` waits for a worker that
is known to be dead or killed and answers its exit status and last words. The end of the control
socket ends everything.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.library import load
from secondpass.llvm.module import Module

HEADER = struct.Struct("<I")
REQUEST = struct.Struct("<cI")
NUMBERS = struct.Struct("<Iqd")
SPAWN, REAP = b"S", b"R"
LAST_WORDS = 4096

_PR_SET_PDEATHSIG = 1


def receive(connection: socket.socket, size: int) -> bytes | None:
    """Exactly `size` bytes; None at the end of the stream."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)


def serve(control: socket.socket, seconds: float, memory: int) -> None:
    """Fork and reap workers until the control socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    load()
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
                _become_worker(theirs, sink, list(last_words.values()), seconds, memory)
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


def _tail(sink: int) -> bytes:
    size = os.fstat(sink).st_size
    said = os.pread(sink, LAST_WORDS, max(0, size - LAST_WORDS))
    os.close(sink)
    return said


def _become_worker(connection: socket.socket, sink: int, others: list[int], seconds: float, memory: int) -> None:
    """What a fresh fork does; never returns into the server's loop."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(sink, 2)
        for fd in (sink, *others):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
        gc.disable()  # nothing here makes cycles, and a collection in a batch is lost time
        _work(connection, seconds)
        code = 0
    except MemoryError:
        os.write(2, b"out of memory")
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _work(connection: socket.socket, seconds: float) -> None:
    """Answer batches: a pickled `(Job or None, lists)`, None meaning the module of the batch before."""
    module: Module | LLVMError | None = None
    job: Job | None = None
    while (header := receive(connection, HEADER.size)) is not None:
        message = receive(connection, HEADER.unpack(header)[0])
        if message is None:
            return
        new_job, lists = pickle.loads(message)
        started = time.perf_counter()
        if new_job is not None:
            if isinstance(module, Module):
                module.close()
            job = new_job
            module = _guarded(seconds, _parse, job)
        assert job is not None and module is not None
        for pipeline in lists:
            outcome = _guarded(seconds, _outcome, module, pipeline, job, started)
            _send(connection, outcome)
            started = time.perf_counter()


def _guarded(seconds: float, work: Any, *arguments: Any) -> Any:
    """Call `work`; the kernel ends the process by SIGALRM when it takes longer than `seconds`."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _send(connection: socket.socket, outcome: Outcome) -> None:
    data = encode(outcome)
    connection.sendall(HEADER.pack(len(data)) + data)


def encode(outcome: Outcome) -> bytes:
    """An outcome for the wire: most are three numbers, and pickling them would take longer than a short list."""
    if outcome.ok and not outcome.functions and outcome.bitcode is None:
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


def _outcome(module: Module | LLVMError, pipeline: str, job: Job, started: float) -> Outcome:
    """What a list does; `started` is when LLVM began on it, parsing the module for the first one."""
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
            functions = copy.functions() if job.functions and not job.bytes else ()
            size = None
            if job.bytes:
                size, functions = copy.native_sizes(each=job.functions)
        except LLVMError as error:
            return Outcome(Status.BROKEN, _line(error))
        instructions = copy.instruction_count
        bitcode = copy.to_bitcode() if job.keep else None
    seconds = time.perf_counter() - started
    return Outcome(Status.OK, "", instructions, size, functions, bitcode, seconds)


def _line(error: LLVMError) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), float(sys.argv[2]), int(sys.argv[3]))
