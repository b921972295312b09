"""The disk that a corpus grows on: a full one ends the run, it is not the fault of the project at hand."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from secondpass.errors import InputError

_FREE_BYTES = 2 << 30
_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_SAID = re.compile(
    r"^(?!\s*\d+ \|).*(?:can't|cannot|could not|couldn't|unable|failed|failure|error|Errno)\b.*"
    r"\b(?:No space left on device|Disk quota exceeded)",
    re.IGNORECASE | re.MULTILINE,
)
"""Not in a line of source that a compiler shows."""


def check_disk(out: Path) -> None:
    """Refuse to go on when the disk is nearly full: what is done stays, and the command can be started again.

    Raises:
        InputError: less than 2 GiB are free.
    """
    free = shutil.disk_usage(out).free
    if free < _FREE_BYTES:
        raise InputError(f"{out}: only {free >> 20} MiB are free on this disk and a build may need 2 GiB; make room")


def is_full(error: OSError) -> bool:
    """Whether that is what an error says of a disk."""
    return error.errno in _ERRORS


def check_said(out: Path, said: str) -> None:
    """Look for a full disk in what a program that failed has printed.

    Raises:
        InputError: that is what it failed of.
    """
    if found := _SAID.search(said):
        raise _full(out, found[0])


@contextmanager
def full_disk_is_clear(out: Path) -> Generator[None, None, None]:
    """Raise an InputError where this process meets a full disk."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise _full(out, str(error)) from error
        raise


def _full(out: Path, said: str) -> InputError:
    return InputError(
        f"{out}: a disk is full ({' '.join(said.split())[:300]}); what is done stays: "
        "make room and start the same command again"
    )
