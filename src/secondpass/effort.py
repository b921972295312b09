"""How hard to try: four levels, from the coreset alone to a search that begins with the model's answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from secondpass.errors import InputError


@dataclass(frozen=True, slots=True)
class Effort:
    """What a level asks for.

    Attributes:
        coreset: its first lists are tried on the module and on every function.
        strategy: how answers are asked for (`strategies.choice`); empty for none, and no model is loaded.
        answers: of the strategy, a function.
        seconds: the longest time for a file; `optimize.optimize` says what was left out.
    """

    coreset: int
    strategy: str
    answers: int
    seconds: float


EFFORTS = (
    Effort(coreset=10, strategy="", answers=0, seconds=60),
    Effort(coreset=10, strategy="single", answers=1, seconds=120),
    Effort(coreset=20, strategy="sample", answers=10, seconds=300),
    Effort(coreset=50, strategy="search", answers=100, seconds=1800),
)
"""By level."""


def chosen(level: int | None, coreset: int | None, strategy: str | None, answers: int | None) -> Effort:
    """What a user asked for: a level, or its parts, of which those left out are the usual ones.

    Raises:
        InputError: both, or there is no such level.
    """
    if level is None:
        answers = 1 if answers is None else answers
        return Effort(coreset or 0, strategy or ("feedback" if answers == 1 else "sample"), answers, math.inf)
    if (coreset, strategy, answers) != (None, None, None):
        raise InputError("--effort says what --coreset, --strategy and --samples say: give it alone, or them")
    return effort(level)


def effort(level: int) -> Effort:
    """The effort of a level.

    Raises:
        InputError: there is no such level.
    """
    if not 0 <= level < len(EFFORTS):
        raise InputError(f"effort {level}: give a number from 0 (the coreset alone) to {len(EFFORTS) - 1} (a search)")
    return EFFORTS[level]
