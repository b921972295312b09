"""The client of a build's server: what a compiler command does before it would load anything.

A build starts the driver for every file. With a server (`driver.server`) such a process is this module alone: it hands
its words, environment, folder and standard files over, and waits for an exit code. Where there is no server it starts
one for the commands to come and says so to the caller, who does the work itself. The trials of a build system, of
which `configure` makes hundreds, are clang's alone: where a server has said which clang that is, such a process becomes
it.
"""

from __future__ import annotations

import _socket  # `socket` takes 20 ms to import, for enums that nobody asks for here; so does `signal`
import marshal
import os
import resource
import stat
import sys

from secondpass import __version__
from secondpass.probes import is_probe
from secondpass.suffixes import LANGUAGES

TYPE_CHECKING = False  # `typing` takes 5 ms
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
    from typing import NoReturn

    Limits = tuple[int, int, list[int], list[tuple[int, tuple[int, int]]]]
else:
    import _signal

VARIABLE = "SECONDPASS_SERVER"
"""Seconds without work after which the server goes; 0 for no server."""
FORCE = "SECONDPASS_FORCE"
REAL = "SECONDPASS_REAL_CC"
REAL_CXX = "SECONDPASS_REAL_CXX"
IDLE_SECONDS = 600
NUMBER_BYTES = 4
"""Of the message's length, of each file descriptor, and of the exit code."""
_FOR_SIZE = ("-Oz", "-Os")
_RESOURCES = 16
"""That Linux limits."""
_OWN = ("/dev/fd/", "/dev/std", "/proc/self/")
"""What is another file in another process, or can be read only once."""
PATHS = ("SECONDPASS_LLVM", "SECONDPASS_CLANG", "PATH")
"""What decides which LLVM a process loads."""


def ask(language: str, words: Sequence[str]) -> int | None:
    """Have the server do a command.

    Args:
        language: the driver's, `c` or `c++`.
        words: the command line behind the driver's name.

    Returns:
        The exit code; None where there is no server (yet).
    """
    for_server = idle_seconds() and _standard_files_are_open() and not names_own_file(words)
    address = _address() if for_server else None
    if address is None:
        return None
    if is_trial(words) and not os.environ.get(REAL_CXX if language == "c++" else REAL):
        _become_clang(address, language, words)
    connection = _socket.socket(_socket.AF_UNIX)
    try:
        connection.connect(address)
        if _user_of(connection) != os.getuid():  # the folder was exchanged behind us
            return None
        return _answer(connection, marshal.dumps((language, list(words), dict(os.environ), _limits())))
    except (FileNotFoundError, ConnectionRefusedError):
        if "-c" in words and (forced() or any(it in words for it in _FOR_SIZE)):  # a build, and there is work in it
            try:  # noqa: SIM105  `contextlib` takes 5 ms
                _start(address)
            except OSError:
                pass
        return None
    except Exception:  # a standard file is closed, the server is just going; whatever it is, the build goes on
        return None
    finally:
        connection.close()


def is_trial(words: Sequence[str]) -> bool:
    """Whether a command is so clearly a build system's trial that reading it tells no more.

    Its first word is an option or a source, so none that names the compiler; there is no response file, nothing that
    names a language, and every source is a probe.
    """
    suffixes = tuple(LANGUAGES)
    if not words or words[0] == "--real-cc" or not (words[0][:1] == "-" or words[0].endswith(suffixes)):
        return False
    if any(it[:1] == "@" or it[:2] == "-x" for it in words):
        return False
    sources = [it for it in words if it[:1] != "-" and it.endswith(suffixes)]
    try:
        return bool(sources) and all(is_probe(os.path.join(os.getcwd(), it)) for it in sources)
    except OSError:  # the folder is gone
        return False


def compilers_at(address: str) -> str:
    """The file in which a server says which clang it calls, a command for each language.

    That depends on what the socket's name says, and on whether there are a linker and a C++ library of the system's,
    which a server has looked for at its start.
    """
    return f"{address.removesuffix('.socket')}.clang"


def _become_clang(address: str, language: str, words: Sequence[str]) -> None:
    """Become the clang that a server has named; returns where none has, or it cannot be run."""
    try:
        with open(compilers_at(address), "rb") as file:
            about = os.fstat(file.fileno())
            if about.st_uid != os.getuid() or about.st_mode & 0o022:  # the folder was exchanged behind us
                return
            command = marshal.load(file)[language]
        become([*command, *words])
    except (OSError, ValueError, EOFError, TypeError, KeyError):
        return


def become(command: list[str]) -> NoReturn:
    """Become another program; raises OSError where it cannot be run, and nothing is changed then."""
    ignored = _signal.SIGPIPE, _signal.SIGXFSZ  # by Python, and what we become would ignore them too
    for number in ignored:
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    finally:
        for number in ignored:
            _signal.signal(number, _signal.SIG_IGN)


def names_own_file(words: Sequence[str]) -> bool:
    """Whether a word names a file that is this process's alone, as a shell's `<(command)` does."""
    return any(it in word for word in words for it in _OWN)


def _standard_files_are_open() -> bool:
    """Whether they are; or else what is opened next takes their place."""
    try:
        for fd in (0, 1, 2):
            os.fstat(fd)
    except OSError:
        return False
    return True


def forced() -> bool:
    """Whether every file is ours, whatever its level of optimisation."""
    return os.environ.get(FORCE, "") not in ("", "0")


def idle_seconds() -> int:
    """How long a server waits for work; 0 where none is wanted, or what is wanted is no number."""
    word = os.environ.get(VARIABLE, str(IDLE_SECONDS))
    return int(word) if word.isdecimal() else 0


def _user_of(connection: _socket.socket) -> int:
    """Who listens at the other end."""
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    return int.from_bytes(found[4:8], sys.byteorder)


def _answer(connection: _socket.socket, message: bytes) -> int | None:
    folder = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        files = b"".join(fd.to_bytes(NUMBER_BYTES, sys.byteorder) for fd in (0, 1, 2, folder))
        attached = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)]
        connection.sendmsg([len(message).to_bytes(NUMBER_BYTES, sys.byteorder)], attached)
    finally:
        os.close(folder)
    connection.sendall(message)
    while True:
        try:
            answer = connection.recv(NUMBER_BYTES, _socket.MSG_WAITALL)
        except KeyboardInterrupt:  # the server sees the end of the stream, and ends the work
            connection.shutdown(_socket.SHUT_WR)
            continue
        return int.from_bytes(answer, sys.byteorder, signed=True) if len(answer) == NUMBER_BYTES else None


def _limits() -> Limits:
    """What a child inherits that is neither environment nor file: umask, niceness, processors, resource limits."""
    mask = os.umask(0o077)
    os.umask(mask)
    limits = [(kind, resource.getrlimit(kind)) for kind in range(_RESOURCES)]
    return mask, os.getpriority(os.PRIO_PROCESS, 0), list(os.sched_getaffinity(0)), limits


def _address() -> str | None:
    """The server's socket, in a folder that is ours alone; None where there is none to be had.

    Every version of ours has its own server, and builds in another root or mount namespace have, which see other files
    under the same names, and those of another group, whose files belong to it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = os.path.join(base, "secondpass") if os.path.isdir(base) else f"/tmp/secondpass-{os.getuid()}"
    try:
        if not os.path.lexists(folder):
            os.makedirs(folder, 0o700, exist_ok=True)
        about, root = os.lstat(folder), os.stat("/")
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077:
            return None
        view = (os.readlink("/proc/self/ns/mnt"), root.st_dev, root.st_ino, os.getegid(), *sorted(os.getgroups()))
    except OSError:
        return None
    facts = (__version__, sys.prefix, sys.version, __file__, view, *(os.environ.get(it, "") for it in PATHS))
    return os.path.join(folder, f"{_hash(repr(facts).encode('utf-8', 'surrogateescape')):016x}.socket")


def _hash(data: bytes) -> int:
    """FNV-1a, of a few hundred bytes: hashlib takes longer to import."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value


def _start(address: str) -> None:
    """Start a server, and do not wait: this command's work is done before it could answer."""
    import subprocess

    subprocess.Popen(
        [sys.executable, "-P", "-m", "secondpass.driver.server", address, str(idle_seconds())],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
