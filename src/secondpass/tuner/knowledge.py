"""What the tuner knows before it sees a function: lists that serve many, and which passes follow which.

Both come from the winners of earlier functions, and both fit any function of the corpus they were
learned from. The coreset that ships with the package is the start; a run's own winners are added to it.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Generic, TypeVar

from secondpass.llvm.passes import Words
from secondpass.tuner.tails import Tails

_T = TypeVar("_T")

_START, _END = "<start>", "<end>"
_MOST_WINNERS = 6_000
"""Winners that are kept."""
_SMOOTHING = 0.15
"""Share of a draw that ignores what was learned, so that no pass is ever out of reach."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a search starts from.

    Attributes:
        lists: lists to try first, the most useful first.
        winners: the lists that were best on earlier functions, with their weights, the weightiest first.
        tails: what often still helps behind every list, and behind the best states.
        digest: of lists and winners, so that a process prepares its tables once.
    """

    lists: tuple[Words, ...] = ()
    winners: Mapping[Words, int] = field(default_factory=dict[Words, int])
    tails: Tails = field(default_factory=Tails)
    digest: str = ""

    def extended(self, lists: Iterable[Words], winners: Mapping[Words, int]) -> Knowledge:
        """With other lists to try first, and more winners to learn from."""
        weights = Counter(self.winners)
        for words, weight in winners.items():
            # Equal words are one object: a knowledge travels with every job, and so it stays small.
            weights[tuple(map(sys.intern, words))] += weight
        ranked = sorted(weights, key=lambda words: (-weights[words], len(words), words))[:_MOST_WINNERS]
        lists = tuple(lists)
        text = json.dumps([lists, [[words, weights[words]] for words in ranked]])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return Knowledge(lists, {words: weights[words] for words in ranked}, self.tails, digest)


class Draw(Generic[_T]):
    """One of several things, the likelier the more it weighs.

    Args:
        weights: of each; at least one is above 0.
    """

    def __init__(self, weights: Mapping[_T, float]) -> None:
        self._things, self._cumulated = list(weights), list(accumulate(weights.values()))

    def __call__(self, rng: random.Random) -> _T:
        """One of them."""
        return rng.choices(self._things, cum_weights=self._cumulated)[0]


class Sampler:
    """Draws passes and lists the way winners are made; one for a process, it prepares tables once.

    Args:
        knowledge: where the winners are.
        words: what may be drawn: the vocabulary of the LLVM in force.
    """

    def __init__(self, knowledge: Knowledge, words: Iterable[str]) -> None:
        self._words = list(words)
        allowed = set(self._words)
        winners = {words: weight for words, weight in knowledge.winners.items() if allowed.issuperset(words)}
        overall: Counter[str] = Counter()
        follows: dict[str, Counter[str]] = {}
        for words, weight in winners.items():
            for before, after in zip((_START, *words), (*words, _END)):
                follows.setdefault(before, Counter())[after] += weight
                overall[after] += weight
        del overall[_END]
        self._tables = {before: Draw(after) for before, after in follows.items()}
        self._overall = Draw(overall) if overall else None
        self._winners = Draw(winners) if winners else None

    def winner(self, rng: random.Random) -> Words | None:
        """A list that was best on another function, the likelier the oftener it was; None where there is none."""
        return self._winners(rng) if self._winners is not None else None

    def after(self, before: str, rng: random.Random) -> str:
        """A pass likely to follow another; `<end>` where winners end there."""
        draw = rng.random()
        if draw < _SMOOTHING or self._overall is None:
            return self.any(rng)
        if draw < 2 * _SMOOTHING or before not in self._tables:
            return self._overall(rng)
        return self._tables[before](rng)

    def any(self, rng: random.Random) -> str:
        """Any pass, all alike."""
        return rng.choice(self._words)

    def step(self, before: str | None, rng: random.Random) -> str:
        """A pass to put behind another (at the start when None)."""
        while (word := self.after(before or _START, rng)) == _END:
            before = None if rng.random() < 0.5 else before
            if rng.random() < 0.2:
                return self.any(rng)
        return word
