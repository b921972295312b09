"""Response files: words of a command that lie in a file, named `@file` in its place."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from secondpass.errors import InputError

_DEEPEST = 10
"""A response file may name others; deeper ones are words, which ends files that name themselves."""


def expanded(words: Sequence[str], directory: Path, depth: int = 0) -> Iterator[str]:
    """The words of a command, response files replaced by what they hold; one that is not there is a word, as for GCC.

    Args:
        words: the command's.
        directory: that relative names count from.
        depth: of the response file that the words are from.

    Raises:
        InputError: a response file cannot be read.
    """
    for word in words:
        file = directory / word[1:]
        if word.startswith("@") and depth < _DEEPEST and file.is_file():
            try:
                held = shlex.split(file.read_text())
            except (OSError, ValueError) as error:
                raise InputError(f"{word}: the response file cannot be read: {error}") from error
            yield from expanded(held, directory, depth + 1)
        else:
            yield word
