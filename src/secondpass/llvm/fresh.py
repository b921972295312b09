"""Forks of a worker, and work in memory that nobody has used before, so that addresses do not differ.

What some passes do depends on the addresses of what they look at. A new thread gets an arena of its own from the C
library, whose start is aligned to 64 MiB: so addresses differ from run to run only in bits that LLVM's hashes of
pointers do not look at, and the result is the same whatever this process did before.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from secondpass.llvm.wire import messages, send

_ARENA, _BEGINNING = 1 << 26, 1 << 16
"""Bytes: what arenas are aligned to, and within which the first allocation in one lies."""
_PROBE, _SMALL_STACK = 1 << 12, 1 << 17
"""Bytes: more than a thread may have been given back by another, and enough for a thread that waits."""
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 1 << 25
_M_ARENA_MAX, _ARENAS = -8, 1 << 10
"""More than there are ever threads."""
_PR_SET_PDEATHSIG = 1
_USES = 8
"""Of a room: each leaves a thread and its arena behind, 72 MiB of addresses, of the 2 GiB of a worker."""


def begin_fork() -> None:
    """What a fork of a process that has LLVM loaded does first: it dies with its parent, and `exit` runs no handler.

    LLVM ends a process by `exit` where a list is at fault. A fork has its parent's handlers, and they may wait for
    threads that it has not: ONNX Runtime's did, until the time was over.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if hasattr(libc, "on_exit"):  # the last handler is called first, with exit's code
        libc.on_exit(libc._exit, None)


def die_as(pid: int) -> None:
    """Wait for a fork of this process, and die as it did, unless it ended well."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):  # for the server to see
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    if status:
        os._exit(os.waitstatus_to_exitcode(status))


def in_fork(work: Callable[[], None]) -> None:
    """Do work in a fork of this process, in new memory; die as that does."""
    pid = os.fork()
    if pid:
        die_as(pid)
        return
    _begin()
    _in_new_memory(work)
    os._exit(0)


class Room:
    """A fork of this process for small work, one after the other, each in new memory.

    A fork costs seven milliseconds, most of them for pages that it touches for the first time; so it serves some times.

    Args:
        serve: what the fork does with a message.
    """

    def __init__(self, serve: Callable[[bytes], None]) -> None:
        self._serve = serve
        self._left = 0
        self._pid = 0
        self._connection: socket.socket | None = None

    def run(self, message: bytes) -> None:
        """Have a message served; die as the fork does, if that dies of it."""
        if not self._left or self._connection is None:
            self._connection = self._renewed()
        self._left -= 1
        send(self._connection, message)
        if not self._connection.recv(1):
            die_as(self._pid)
            os._exit(1)

    def _renewed(self) -> socket.socket:
        if self._connection is not None:
            self._connection.close()
            os.waitpid(self._pid, 0)
        ours, theirs = socket.socketpair()
        self._pid, self._left = os.fork(), _USES
        if not self._pid:
            ours.close()
            _attend(theirs, self._serve)
        theirs.close()
        return ours


def _attend(connection: socket.socket, serve: Callable[[bytes], None]) -> NoReturn:
    """What the fork does."""
    _begin()
    for message in messages(connection):
        _in_new_memory(partial(serve, message))
        connection.sendall(b".")
    os._exit(0)


def _begin() -> None:
    """What a fork does first: arenas that its parent's threads had go to threads that wait for ever."""
    begin_fork()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)  # larger memory lies elsewhere, after what is there already
    libc.mallopt(_M_ARENA_MAX, _ARENAS)
    libc.malloc.restype = ctypes.c_size_t
    places: list[int] = []
    usual = threading.stack_size(_SMALL_STACK)
    for _ in range(_ARENAS):
        _keep_busy(lambda: places.append(libc.malloc(_PROBE)))
        if places[-1] % _ARENA < _BEGINNING:
            break
    threading.stack_size(usual)


def _in_new_memory(work: Callable[[], None]) -> None:
    """Do work in a new thread, which keeps its arena: no other gets that."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    _keep_busy(run)
    if failures:
        raise failures[0]


def _keep_busy(work: Callable[[], None]) -> None:
    """Do work in a new thread, which does not end."""
    done = threading.Semaphore(0)

    def run() -> None:
        work()
        done.release()
        threading.Event().wait()

    threading.Thread(target=run, daemon=True).start()
    done.acquire()
