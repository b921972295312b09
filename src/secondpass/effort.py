"""How hard to try: four levels, from the coreset alone to a search that begins with the model's answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from secondpass.errors import InputError

if TYPE_CHECKING:
    from secondpass.engines.onnx import OnnxEngine
    from secondpass.prompt import Form
    from secondpass.strategies.base import Strategy


@dataclass(frozen=True, slots=True)
class Effort:
    """What a level asks for.

    Attributes:
        coreset: its first lists are tried on the module, and on each function those that leave least of it there.
        strategy: how answers are asked for (`strategies.choice`); empty for none, and no model is loaded.
        answers: of the strategy, a function.
        changes: of options of code generation that are tried, where clang makes the object (`driver.codegen`).
        seconds: the longest time for a file; `optimize.optimize` says what was left out.
    """

    coreset: int
    strategy: str
    answers: int
    changes: int
    seconds: float

    def engine(self, threads: int | None = None) -> OnnxEngine | None:
        """The model in the box, loaded once a process; None where no answers are asked for.

        Args:
            threads: of one step; None for as many as this process has physical cores.
        """
        return _engine(threads) if self.strategy else None

    def chosen_strategy(
        self,
        engine: OnnxEngine | None,
        temperature: float | None = None,
        seed: int = 0,
        form: Form | None = None,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Strategy:
        """How answers are asked for, with settings as `strategies.choice.choose` takes them."""
        from secondpass.strategies.choice import choose

        name, answers = (self.strategy, self.answers) if self.strategy else ("single", 1)
        usual = engine.temperature if engine else 1.0
        return choose(name, answers, temperature, seed, form, usual_temperature=usual, top_k=top_k, top_p=top_p)


@cache
def _engine(threads: int | None) -> OnnxEngine:
    from secondpass.engines.onnx import OnnxEngine
    from secondpass.llvm.library import load

    return OnnxEngine.load(words=load().words, threads=threads)


_SEARCHED = 100
"""Compiles of a search that is asked for by name alone."""

EFFORTS = (
    Effort(coreset=10, strategy="", answers=0, changes=24, seconds=60),
    Effort(coreset=25, strategy="single", answers=1, changes=60, seconds=120),
    Effort(coreset=50, strategy="sample", answers=10, changes=120, seconds=300),
    Effort(coreset=50, strategy="search", answers=100, changes=180, seconds=1800),
)
"""By level."""


def chosen(level: int | None, coreset: int | None, strategy: str | None, answers: int | None) -> Effort:
    """What a user asked for: a level, or its parts, of which those left out are the usual ones.

    Raises:
        InputError: both, or there is no such level.
    """
    if level is None:
        answers = (_SEARCHED if strategy == "search" else 1) if answers is None else answers
        return Effort(coreset or 0, strategy or ("feedback" if answers == 1 else "sample"), answers, 0, math.inf)
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
