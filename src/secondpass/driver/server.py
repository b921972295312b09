"""A build's server: a process that has everything loaded, and forks for each command that a client sends.

`python -m secondpass.driver.server SOCKET SECONDS` is started by the first command of a build (`driver.client`) and
goes when it had nothing to do for so many seconds. A child takes the client's folder, environment, umask and standard
files and does what the driver does without a server; when the client goes away, its child is interrupted. The server
itself compiles nothing, so no source can harm it.
"""

from __future__ import annotations

import fcntl
import gc
import marshal
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from secondpass.driver.client import NUMBER_BYTES, PATHS, compilers_at
from secondpass.driver.driver import usual_compiler
from secondpass.errors import SecondpassError
from secondpass.files import write_whole
from secondpass.llvm.library import load
from secondpass.llvm.wire import receive

if TYPE_CHECKING:
    from secondpass.driver.client import Limits

_TICK_SECONDS = 1.0
_REQUEST_SECONDS = 5.0
_ENDING_SECONDS = 10.0
"""What an interrupted command has to clean up, before it is killed."""
_MODULES = (
    "diskcache",
    "secondpass.by_function",
    "secondpass.driver.driver",
    "secondpass.driver.smaller",
    "secondpass.optimize",
    "secondpass.strategies.choice",
)
"""What a command imports, late where it may be needless."""
_CREDENTIALS = struct.Struct("3i")


@dataclass(slots=True)
class _Command:
    """A command under way.

    Attributes:
        client: gets its exit code.
        pid: the child that does it, the leader of a process group.
        child: a file descriptor that is readable when the child has ended.
        killed_at: when it is to be killed, since it was interrupted.
    """

    client: socket.socket
    pid: int
    child: int
    killed_at: float | None = None


class Server:
    """Serves a socket until nothing was asked for some time.

    Args:
        listener: bound and listening.
        idle_seconds: how long it stays without work.
    """

    def __init__(self, listener: socket.socket, idle_seconds: float) -> None:
        self._listener, self._idle_seconds = listener, idle_seconds
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._commands: list[_Command] = []

    def run(self) -> None:
        """Serve."""
        idle_since = time.monotonic()
        while self._commands or time.monotonic() - idle_since < self._idle_seconds:
            for key, _ in self._selector.select(_TICK_SECONDS):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._commands:
                    self._attend(key.data, ended=key.fileobj == key.data.child)
            now = time.monotonic()
            for command in self._commands:
                idle_since = now
                if command.killed_at is not None and now > command.killed_at:
                    self._signal(command, signal.SIGKILL)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(_REQUEST_SECONDS)
        fds: list[int] = []
        try:
            _, user, _ = _CREDENTIALS.unpack(
                client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if user != os.getuid():
                raise PermissionError
            head, fds, _, _ = socket.recv_fds(client, NUMBER_BYTES, 4)
            message = receive(client, int.from_bytes(head, sys.byteorder))
            language, words, environment, limits = marshal.loads(message or b"")
            self._load(environment)
            pid = os.fork()
            if not pid:
                self._become(language, words, environment, limits, fds)
            command = _Command(client, pid, os.pidfd_open(pid))
            self._commands.append(command)
            self._selector.register(command.child, selectors.EVENT_READ, command)
            self._selector.register(client, selectors.EVENT_READ, command)
        except (OSError, ValueError, EOFError, TypeError, struct.error):  # it does the work itself
            client.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _attend(self, command: _Command, *, ended: bool) -> None:
        if not ended:  # the client says nothing more: it went away, or was interrupted
            self._selector.unregister(command.client)
            self._signal(command, signal.SIGINT)
            command.killed_at = time.monotonic() + _ENDING_SECONDS
            return
        _, status = os.waitpid(command.pid, 0)
        with suppress(OSError):
            code = os.waitstatus_to_exitcode(status)
            command.client.sendall(code.to_bytes(NUMBER_BYTES, sys.byteorder, signed=True))
        self._selector.unregister(command.child)
        os.close(command.child)
        with suppress(KeyError):
            self._selector.unregister(command.client)
        command.client.close()
        self._commands.remove(command)

    @staticmethod
    def _signal(command: _Command, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, number)

    @staticmethod
    def _load(environment: Mapping[str, str]) -> None:
        """Have the model here where a command will ask it: its children then have it too."""
        from secondpass.driver.driver import level_of_effort
        from secondpass.driver.smaller import load_model

        with suppress(SecondpassError):  # the command itself says what is wrong
            load_model(level_of_effort(environment))

    def _become(
        self, language: str, words: list[str], environment: dict[str, str], limits: Limits, fds: list[int]
    ) -> None:
        """What a child does; never returns into the server's loop."""
        code = 1
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._selector.close()
            self._listener.close()
            for command in self._commands:
                os.close(command.child)
                command.client.close()
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
            os.fchdir(fds[3])
            for fd in fds:
                os.close(fd)
            _take(limits)
            os.environ.clear()
            os.environ.update(environment)
            from secondpass.driver.driver import main

            code = main(language, words)
            sys.stdout.flush()
            sys.stderr.flush()
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)


def _take(limits: Limits) -> None:
    """Live with the client's limits; those above this process's own stay as they are."""
    umask, niceness, processors, resources = limits
    os.umask(umask)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    with suppress(OSError):
        os.sched_setaffinity(0, processors)
    for kind, limit in resources:
        if resource.getrlimit(kind) != limit:
            with suppress(OSError, ValueError):
                resource.setrlimit(kind, limit)


def _preload() -> None:
    """Load what a command without a model needs."""
    for name in _MODULES:
        import_module(name)
    with suppress(SecondpassError):  # the commands themselves say what is wrong
        load().vocabulary()


def _name_compilers(file: Path) -> None:
    """Write which clang is called, unless that depends on the folder it is called from."""
    llvm, clang, path = (os.environ.get(it, "") for it in PATHS)
    if not all(map(os.path.isabs, (*path.split(os.pathsep), *filter(None, (llvm, clang))))):
        return
    with suppress(SecondpassError, OSError):  # the commands themselves say what is wrong
        write_whole(file, marshal.dumps({it: usual_compiler(it) for it in ("c", "c++")}))


def serve(address: str, idle_seconds: float) -> None:
    """Serve at a socket, unless another process does."""
    path = Path(address)
    with path.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        with socket.socket(socket.AF_UNIX) as listener:
            _preload()
            compilers = Path(compilers_at(address))
            for it in (path, compilers):
                it.unlink(missing_ok=True)  # of a server that was killed
            os.umask(0o077)
            try:
                _name_compilers(compilers)
                listener.bind(address)
                listener.listen(128)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                gc.freeze()  # children share these pages
                Server(listener, idle_seconds).run()
            finally:
                for it in (path, compilers):
                    it.unlink(missing_ok=True)


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
