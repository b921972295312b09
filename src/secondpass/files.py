"""Files that a killed process leaves usable: written whole or not at all, or line by line; and locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from secondpass.errors import InputError


def digest(path: Path) -> str:
    """SHA-256 of a file; empty where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is complete at every moment anybody looks: another one is made beside it and takes its name.

    A device or a pipe is written to as it is; a link stays, such as /dev/stdout, and what it names is written.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as sink:
            sink.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp makes it private, compilers do not
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, document: object) -> None:
    """Write a document; the file is complete at every moment, and on the disk when this returns.

    One process at a time may write it: what a killed one left is written over.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as sink:
        sink.write(json.dumps(document, indent=1) + "\n")
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)


def has_place(path: Path) -> bool:
    """Whether `write_whole` may write there: into the folder, or to a device or pipe."""
    special = path.exists() and not path.is_file()
    return os.access(path if special else path.resolve().parent, os.W_OK)


def lock(path: Path, busy: str) -> IO[bytes]:
    """Keep other processes out until the file that this gives is closed, or the process ends, however it ends.

    Args:
        path: an empty file, made with its folder where it is not there; it stays.
        busy: what to raise where another process is in.

    Raises:
        InputError: another process is in, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(busy) from None
    return file


def read_records(path: Path) -> Iterator[Any]:
    """The lines of a file that `appending` wrote, as JSON knows them; none where there is no file."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:  # cut short
            continue


@contextmanager
def appending(path: Path) -> Generator[Callable[[Any], None]]:
    """Open a file of JSON to add lines to; what a killed process left of its last one is ended first.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")

        def add(record: Any) -> None:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()

        yield add
