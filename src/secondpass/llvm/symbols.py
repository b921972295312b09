"""Symbols as a person reads them."""

from __future__ import annotations

import re

from secondpass.llvm.library import load

_LONG = 60
"""Characters of a name that is shortened."""
_TOKEN = re.compile(r"operator(?:\(\)|[<>=\-]+[*]?)|\(anonymous namespace\)|.", re.DOTALL)
"""A character, or characters among which brackets are none."""

_TAG = re.compile(r"\[abi:\w+\]")
"""Of a version of the C++ library."""


def readable(symbol: str) -> str:
    """A C++ function's name as its source has it, any other symbol as it is.

    Tags of ABIs are left out; of a long name the template arguments too, and then the parameters: they may have
    hundreds of characters.
    """
    name = load().demangled(symbol)
    if name == symbol:
        return symbol
    name = _TAG.sub("", name)
    for opening, closing in ("<>", "()"):
        if len(name) > _LONG:
            name = _without(name, opening, closing)
    return name


def _without(name: str, opening: str, closing: str) -> str:
    """The name with nothing in the outermost brackets of a kind."""
    kept, depth = list[str](), 0
    for token in _TOKEN.findall(name):
        depth -= token == closing
        if not depth:
            kept.append(token)
        depth += token == opening
        if token == opening and depth == 1:
            kept.append("…")
    return name if depth else "".join(kept)
