"""Which few lists of the coreset to try on a function, from how probable a model holds each of them.

    order = shipped(objective).order(log_probabilities, 10)

A coreset is in the order that serves the training functions best, all of them alike. A model that has read a function
says which of them it resembles: those whose good lists it holds probable. Lists are then chosen greedily, as
the coreset's were, each next one for what it adds to those chosen before, but on training functions that weigh
as much as the model makes them likely. So the second list is not the model's second choice, which is mostly
the first one's twin, but what helps if the first does not.

What the training functions are like is a table that ships with the package: for a sample of those with something to
gain, the share of the best gain that each list reaches (`scripts/learn_portfolio.py` makes it of `tuner.outcomes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secondpass.errors import InputError
from secondpass.llvm.library import load
from secondpass.llvm.passes import Words
from secondpass.prompt import Objective

_SHARPNESS = 4
"""A list of half the best gain is this power of a half as probable an answer as the best: so the models were taught."""
_TRUST = 1.5
"""Power of the likelihood; above 1 for a model that is less sure than it could be."""
_FULL = 255


@dataclass(frozen=True, slots=True, eq=False)
class Portfolio:
    """Lists, and what they do for training functions.

    Attributes:
        lists: the lists, in the order in which they serve all functions.
        shares: the share of its best gain that each list reaches on each function, (functions, lists), 0 to 1.
        weights: how much each function counts, (functions,).
    """

    lists: tuple[Words, ...]
    shares: NDArray[np.float32]
    weights: NDArray[np.float32]

    def order(self, log_probabilities: Sequence[float], most: int) -> list[int]:
        """The lists to try, the first one first, by their numbers.

        Args:
            log_probabilities: of a model, for each list to be its answer; minus infinity for lists not to be tried.
            most: how many to choose; fewer are where there are no more lists.
        """
        given = np.array(log_probabilities, dtype=np.float64)
        usable = np.isfinite(given)
        if not usable.any():
            return []
        probable = np.where(usable, np.exp(given - given[usable].max()), 0.0)
        taught = self.shares**_SHARPNESS
        taught /= taught.sum(axis=1, keepdims=True)
        usual = (taught * self.weights[:, None]).sum(axis=0) / self.weights.sum()
        likely = (taught / np.maximum(usual, np.finfo(np.float32).tiny)) @ (probable / probable.sum())
        weights = self.weights * likely**_TRUST
        reached = np.zeros(len(weights), dtype=np.float32)
        chosen: list[int] = []
        for _ in range(min(most, int(usable.sum()))):
            added = weights @ np.maximum(self.shares - reached[:, None], 0)
            # Where nothing adds anything any more, the more probable ones come first.
            ranked = np.lexsort((-probable, -added))
            best = next(int(it) for it in ranked if usable[it] and it not in chosen)
            chosen.append(best)
            reached = np.maximum(reached, self.shares[:, best])
        return chosen


def sampled(lists: Sequence[Words], oz: Sequence[int], values: NDArray[np.int32], most: int, seed: int) -> Portfolio:
    """A portfolio of some functions.

    Args:
        lists: the lists.
        oz: the functions' values at -Oz.
        values: what the lists leave of each, (functions, lists); 0 where nothing is known.
        most: functions to keep, drawn from those with something to gain.
        seed: of the draw.
    """
    baseline = np.array(oz, dtype=np.int64)[:, None]
    gains = np.where(values > 0, np.maximum(baseline - values, 0), 0)
    improved = np.flatnonzero(gains.max(axis=1) > 0)
    kept = np.sort(np.random.default_rng(seed).permutation(improved)[:most])
    best = gains[kept].max(axis=1, keepdims=True)
    shares = np.rint(gains[kept] / best * _FULL) / _FULL
    return Portfolio(tuple(lists), shares.astype(np.float32), np.sqrt(best[:, 0]).astype(np.float32))


def write(path: Path, portfolio: Portfolio) -> None:
    """Write a portfolio's file."""
    texts = np.array([" ".join(words) for words in portfolio.lists])
    shares = np.rint(portfolio.shares * _FULL).astype(np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, lists=texts, shares=shares, weights=portfolio.weights)


@cache
def shipped(objective: Objective) -> Portfolio:
    """The portfolio in the package, as far as the LLVM in force has its lists' passes.

    Raises:
        InputError: there is none for the objective.
    """
    file = resources.files("secondpass.tuner").joinpath("knowledge_data", f"{objective}-portfolio.npz")
    if not file.is_file():
        raise InputError(f"no portfolio ships for the objective {objective}: take another strategy")
    with resources.as_file(file) as path, np.load(path) as arrays:
        lists = [tuple(str(text).split()) for text in arrays["lists"]]
        shares, weights = arrays["shares"].astype(np.float32) / _FULL, arrays["weights"]
    known = set(load().words)
    usable = [number for number, words in enumerate(lists) if known.issuperset(words)]
    improved = shares[:, usable].max(axis=1) > 0
    return Portfolio(tuple(lists[it] for it in usable), shares[improved][:, usable], weights[improved])
