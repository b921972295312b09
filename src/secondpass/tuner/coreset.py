"""Coresets: the few lists that together serve many functions best.

Chosen greedily: each next list is the one that takes most off what the functions, with the lists chosen
before, still have. The shipped ones come from training functions alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from secondpass.errors import InputError
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList, Words
from secondpass.prompt import Objective
from secondpass.tuner.knowledge import Knowledge
from secondpass.tuner.tails import tails


@cache
def shipped(objective: Objective) -> Knowledge:
    """The coreset, the winners and the tails in the package, the most useful list first."""
    text = resources.files("secondpass.tuner").joinpath("knowledge_data", f"{objective}.json").read_text()
    data = json.loads(text)
    winners = {tuple(words.split()): weight for words, weight in data["winners"].items()}
    lists = (tuple(words.split()) for words in data["coreset"])
    return Knowledge(tails=tails(objective)).extended(lists, winners)


def coreset(objective: Objective, size: int) -> tuple[PassList, ...]:
    """The first lists of the shipped coreset, as far as the LLVM in force has their passes.

    Raises:
        InputError: the size is not between 0 and the number of lists that ship.
    """
    lists = shipped(objective).lists
    if not 0 <= size <= len(lists):
        raise InputError(f"--coreset {size}: {len(lists)} lists ship for the objective {objective}; ask for up to that")
    known = set(load().words)
    return tuple(PassList.of(*words) for words in lists[:size] if known.issuperset(words))


def greedy_cover(
    values: Mapping[Words, Sequence[int]], baseline: Sequence[int], size: int
) -> list[tuple[Words, float]]:
    """Choose lists greedily.

    Args:
        values: for each candidate the value it gives on every function.
        baseline: each function's value at -Oz, always a candidate.
        size: lists wanted.

    Returns:
        The lists in the order of choice, each with the gain of all chosen so far, as a share of the
        baseline's sum. Fewer than `size` when no candidate helps any more.
    """
    import numpy

    candidates = list(values)
    matrix = numpy.array([values[words] for words in candidates], dtype=numpy.int64)
    best = numpy.array(baseline, dtype=numpy.int64)
    total = int(best.sum())
    chosen: list[tuple[Words, float]] = []
    while len(chosen) < size and len(candidates):
        saved = numpy.maximum(best - matrix, 0).sum(axis=1)
        index = int(saved.argmax())
        if saved[index] <= 0:
            break
        best = numpy.minimum(best, matrix[index])
        chosen.append((candidates[index], 1 - int(best.sum()) / total))
    return chosen
