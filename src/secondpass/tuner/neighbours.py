"""Whose winners to try: those of the functions to which the first lists do what they do to this one.

    near = shipped(objective).winners_for(oz, [value of each probe])

A few lists that every search tries anyway are probes: which of them are better than -Oz, as good, or worse, and which
is the best of them, says more about what else will help than how often a list has won anywhere. The table holds
training functions on which the search found better than its first lists: what the probes do to each, its size, and the
lists that were better (`scripts/learn_neighbours.py` makes it of labels and of `tuner.outcomes`).

Without numpy: what a worker of the sandbox loads has no threads, since they would take memory from where LLVM's is to
lie (`llvm.worker`).
"""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import nsmallest
from importlib import resources
from pathlib import Path

from secondpass.files import write_whole
from secondpass.llvm.library import load
from secondpass.llvm.passes import Words
from secondpass.prompt import Objective

_NEAREST = 300
"""Functions whose winners count."""
_SIZE = 0.3
"""Distance of a function whose logarithm at -Oz is one more; a probe that does something else to it is one to three."""
_SHARPNESS = 2.0
"""The farthest of the nearest weighs as much less as the exponential function of this."""
_FULL = 100
"""Shares are kept as so many parts."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A function and what helped it.

    Attributes:
        oz: its value at -Oz.
        shape: what the probes do to it (`shape`).
        winners: the lists that were better than the first ones, each with its share of the most that was found beyond
            these, above 0 up to 1.
    """

    oz: int
    shape: int
    winners: Mapping[Words, float]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Functions, told apart by what probes do to them.

    Attributes:
        probes: the lists that are.
        functions: the functions.
    """

    probes: tuple[Words, ...]
    functions: tuple[Neighbour, ...]

    def winners_for(self, oz: int, values: Sequence[int]) -> dict[Words, float]:
        """The winners of the functions that are most like this one, with their weights.

        Args:
            oz: its value at -Oz.
            values: what each probe leaves of it, in their order.
        """
        this, size = shape(oz, values), math.log(oz)

        def distance(other: Neighbour) -> float:
            return (this ^ other.shape).bit_count() + _SIZE * abs(math.log(other.oz) - size)

        nearest = nsmallest(_NEAREST, ((distance(it), number) for number, it in enumerate(self.functions)))
        farthest = nearest[-1][0] or 1.0
        weights: defaultdict[Words, float] = defaultdict(float)
        for far, number in nearest:
            weight = math.exp(-_SHARPNESS * far / farthest)
            for words, share in self.functions[number].winners.items():
                weights[words] += weight * share
        return dict(weights)


def shape(oz: int, values: Sequence[int]) -> int:
    """What probes do to a function, as bits; those in which two shapes differ are their distance.

    Three bits a probe: is it no better than -Oz, is it worse, is it worse than the best probe.
    """
    best, bits = min(values), 0
    for value in values:
        bits = bits << 3 | (value >= oz) << 2 | (value > oz) << 1 | (value > best)
    return bits


def neighbour(oz: int, values: Sequence[int], reached: int, better: Mapping[Words, int]) -> Neighbour:
    """A function of the table.

    Args:
        oz: its value at -Oz.
        values: what each probe leaves of it.
        reached: what the first lists leave.
        better: lists that leave less, with what they leave; at least one.
    """
    most = reached - min(better.values())
    winners = {words: max(1, round(_FULL * (reached - value) / most)) / _FULL for words, value in better.items()}
    return Neighbour(oz, shape(oz, values), winners)


def write(path: Path, table: Neighbours) -> None:
    """Write a table's file: gzipped JSON."""
    numbers: dict[Words, int] = {}
    functions: list[list[float]] = []
    for it in table.functions:
        row: list[float] = [it.oz, it.shape]
        for words, share in it.winners.items():
            row += numbers.setdefault(words, len(numbers)), share
        functions.append(row)
    data = {"probes": list(map(" ".join, table.probes)), "winners": list(map(" ".join, numbers))}
    text = json.dumps({**data, "functions": functions}, separators=(",", ":"))
    write_whole(path, gzip.compress(text.encode(), mtime=0))


@cache
def shipped(objective: Objective) -> Neighbours | None:
    """The table in the package, winners as far as the LLVM in force has their passes; None where none ships.

    Nor is there one where that LLVM lacks a pass of a probe.
    """
    file = resources.files("secondpass.tuner").joinpath("knowledge_data", f"{objective}-neighbours.json.gz")
    if not file.is_file():
        return None
    data = json.loads(gzip.decompress(file.read_bytes()))
    known = set(load().words)
    probes, winners = ([tuple(text.split()) for text in data[name]] for name in ("probes", "winners"))
    if not all(map(known.issuperset, probes)):
        return None
    usable = [known.issuperset(words) for words in winners]
    functions = tuple(
        Neighbour(oz, bits, {winners[at]: share for at, share in zip(won[::2], won[1::2]) if usable[at]})
        for oz, bits, *won in data["functions"]
    )
    return Neighbours(tuple(probes), functions)
