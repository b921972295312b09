"""Response files: words of a command that lie in a file, named `@file` in its place."""

from __future__ import annotations

import os
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
                data = file.read_bytes()
            except OSError as error:
                raise InputError(f"{word}: the response file cannot be read: {error}") from error
            if b"\0" in data:
                raise InputError(f"{word}: the response file is no text: it holds a zero byte; name another file")
            held = list(split(os.fsdecode(data)))  # names of files among it can be any bytes
            yield from expanded(held, directory, depth + 1)
        else:
            yield word


def split(text: str) -> Iterator[str]:
    """The words of a response file, by the rules of GCC and clang: a backslash takes the next character as it is."""
    word, quote, characters = None, "", iter(text)
    for character in characters:
        if character == "\\":
            word = (word or "") + next(characters, "")
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "'\"":
            word, quote = word or "", character
        elif character.isspace():
            if word is not None:
                yield word
            word = None
        else:
            word = (word or "") + character
    if word is not None:
        yield word
