"""Objects that were made before, by the content that they were made of.

The store is diskcache's: bounded, shared by processes, whole after a kill. Where it cannot be used (a full or read-only
disk, another user's folder), everything is compiled anew and one warning says so.

Nothing waits for the disk: a command that comes from the cache would take 40 ms longer, most of its time. What a loss
of power may leave is found out instead: an object has a digest beside it, and a store that is broken begins anew.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY = "SECONDPASS_CACHE_DIR"
SIZE = "SECONDPASS_CACHE_SIZE"
_BYTES = 1 << 30
_WAIT = 10
"""Seconds for a lock that another process holds."""
_NO_SYNC = 0
"""SQLite's `synchronous=OFF`."""
_DIGEST = hashlib.sha256
_FILES = "cache.db", "cache.db-wal", "cache.db-shm", "[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/*.val"
"""Of the store."""


@dataclass(frozen=True, slots=True)
class Cached:
    """What a compilation gave.

    Attributes:
        image: the object.
        said: clang's diagnostics.
        record: of the build log, as JSON.
        sources: digest of the files that the diagnostics quote, columns and all; empty where there are none.
    """

    image: bytes
    said: str
    record: str
    sources: str = ""


class Cache:
    """Objects by key. It never raises: what cannot be read is absent, what cannot be written is lost.

    Args:
        directory: of the store; made where it is absent, for its owner alone.
        size: its most bytes, 0 for no cache at all; the objects that were not used for the longest time go first.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.trouble = ""
        """What went wrong first, for a warning; empty where nothing did."""
        self._store: Any = None
        if not size:
            return
        try:
            import diskcache  # pyright: ignore[reportMissingTypeStubs]

            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._store = diskcache.Cache(
                str(directory),
                size_limit=size,
                eviction_policy="least-recently-used",
                timeout=_WAIT,
                sqlite_synchronous=_NO_SYNC,
            )
        except Exception as error:  # sqlite, the disk, permissions, the library itself
            self._fails(error, directory)

    @property
    def works(self) -> bool:
        """Whether there is any use in asking."""
        return self._store is not None

    @classmethod
    def of_environment(cls) -> Cache:
        """The cache of `SECONDPASS_CACHE_DIR` and `SECONDPASS_CACHE_SIZE` (bytes; 0 for none), or the usual one."""
        size = os.environ.get(SIZE, "")
        named, base = os.environ.get(DIRECTORY), os.environ.get("XDG_CACHE_HOME")
        try:
            directory = Path(named or Path(base or Path.home() / ".cache") / "secondpass")
        except RuntimeError:  # there is no home
            return cls(Path(), 0)
        return cls(directory, int(size) if size.isdecimal() else _BYTES)

    def get(self, key: str) -> Cached | None:
        """What was made before."""
        if self._store is None:
            return None
        try:
            return _unsealed(self._store.get(key))
        except Exception as error:
            self._fails(error, Path(self._store.directory))
            return None

    def put(self, key: str, made: Cached) -> None:
        """Keep it."""
        if self._store is None:
            return
        try:
            self._store.set(key, _sealed(made))
        except Exception as error:
            self._fails(error, Path(self._store.directory))

    def close(self) -> None:
        """Give the files back."""
        if self._store is not None:
            with suppress(Exception):
                self._store.close()

    def _fails(self, error: Exception, directory: Path) -> None:
        self._store = None
        after = "everything is compiled anew"
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                for path in [path for pattern in _FILES for path in directory.glob(pattern)]:
                    path.unlink(missing_ok=True)
                after = "it begins anew"
        self.trouble = self.trouble or f"the cache at {directory} cannot be used ({error}); {after}"


def _sealed(made: Cached) -> bytes:
    data = marshal.dumps((made.image, made.said, made.record, made.sources))
    return _DIGEST(data).digest() + data


def _unsealed(kept: object) -> Cached | None:
    """What was sealed; None for anything else."""
    size = _DIGEST().digest_size
    if not isinstance(kept, bytes) or _DIGEST(kept[size:]).digest() != kept[:size]:
        return None
    return Cached(*marshal.loads(kept[size:]))


def key_of(parts: Iterable[bytes]) -> str:
    """The key of what a compilation depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
