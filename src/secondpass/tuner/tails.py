"""Tails: the few passes that still help behind nearly every list, and others that often do.

The tails of each objective were learned from training functions (`scripts/learn_tails.py`). Answers are finished with
them (`tuner.finish`), and a search tries them behind what it finds (`tuner.search`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from secondpass.llvm.library import load
from secondpass.llvm.passes import Words
from secondpass.prompt import Objective


@dataclass(frozen=True, slots=True)
class Tails:
    """Passes that often still help.

    Attributes:
        first: behind every list.
        others: behind the best states, the most useful tail first.
    """

    first: Words = ()
    others: tuple[Words, ...] = ()


@cache
def tails(objective: Objective) -> Tails:
    """The tails that ship, as far as the LLVM in force has their passes."""
    text = resources.files("secondpass.tuner").joinpath("knowledge_data", "tails.json").read_text()
    data, known = json.loads(text)[objective], set(load().words)

    def usable(tail: str) -> Words:
        return tuple(word for word in tail.split() if word in known)

    return Tails(usable(data["first"]), tuple(map(usable, data["others"])))
