"""Several answers at once: decoding in lockstep under the grammar.

All answers of a batch start at one place and read one token a step, so they have one length at any
time; an answer that is complete leaves the batch, and answers that are the same so far are read as one. Each
draws from a generator of its own and sees only its own logits, so it is the same whatever else is in the batch.

The module knows ids and logits; it knows nothing of models and text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secondpass.engines.grammar import Grammar, State

Logits = NDArray[np.float32]
Scores = NDArray[np.float64]
_Choice = Callable[[Scores, np.random.Generator], int]


class Branches(Protocol):
    """A model's state after the same number of tokens in each of several branches, one at first."""

    def select(self, rows: Sequence[int]) -> None:
        """Keep these branches, in this order. One may be named several times: it is cloned."""
        ...

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        """Read tokens, (branches, tokens), and give the logits after each, (branches, tokens, vocabulary)."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """An answer so far.

    Attributes:
        state: where the grammar stands.
        tokens: its ids.
        log_probability: of these tokens under the model at temperature 1.
    """

    state: State
    tokens: tuple[int, ...] = ()
    log_probability: float = 0.0

    def append(self, grammar: Grammar, token: int, log_probability: float) -> Written:
        """The answer with one more token."""
        state = grammar.advance(self.state, token)
        return Written(state, (*self.tokens, token), self.log_probability + log_probability)


def log_probabilities(logits: Logits) -> Scores:
    """The logarithm of the softmax over the last axis."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def decode(
    branches: Branches,
    grammar: Grammar,
    start: Written,
    scores: Scores,
    room: int,
    *,
    n: int = 1,
    temperature: float = 0.0,
    seed: Sequence[int] = (0,),
    top_k: int | None = None,
    top_p: float | None = None,
) -> list[Written]:
    """Write n answers to their ends.

    Args:
        branches: the model after what was read, one branch; used up by this.
        grammar: what an answer may look like.
        start: what all answers begin with; the model has read it.
        scores: log probabilities of the next token, (vocabulary,).
        room: tokens the rest of an answer may have; `start.state.shortest` at least.
        n: how many; at temperature 0 all are the same and one is decoded.
        temperature: 0 for the most probable token at each step, else what to sample at.
        seed: of the sampling; numbers that make one together.
        top_k: sample among so many of the most probable tokens; None for all the grammar allows.
        top_p: and of these among the fewest that hold this share of their probability at the temperature
            (nucleus sampling); None for all. Both are of no meaning at temperature 0.
    """
    choose = partial(_choose, temperature=temperature, top_k=top_k, top_p=top_p)
    samples = [_Sample(start, generator) for generator in _generators(seed, n if temperature else 1)]
    live, ahead = samples, scores[None]
    while True:
        for sample in live:
            sample.write(grammar, ahead[sample.branch], room, choose)
        live = [sample for sample in live if not sample.written.state.ended]
        if not live:
            return [samples[0].written] * n if temperature == 0 else [sample.written for sample in samples]
        going_on: dict[tuple[int, tuple[int, ...]], int] = {}
        for sample in live:
            sample.branch = going_on.setdefault((sample.branch, sample.unread), len(going_on))
        before = [branch for branch, _ in going_on]
        if before != list(range(len(ahead))):
            branches.select(before)
        unread = np.array([tokens for _, tokens in going_on], dtype=np.int64)
        room -= unread.shape[1]
        found = log_probabilities(branches.step(unread))
        for sample in live:
            sample.count_forced(grammar, found[sample.branch])
        ahead = found[:, -1]


@dataclass(slots=True)
class _Sample:
    written: Written
    generator: np.random.Generator
    branch: int = 0
    """The one that has read what is written."""
    unread: tuple[int, ...] = ()
    """Tokens the model has not read yet: the one chosen, then those the grammar forces after it."""

    def write(self, grammar: Grammar, scores: Scores, room: int, choose: _Choice) -> None:
        """Choose a token by these log probabilities."""
        allowed = grammar.allowed(self.written.state, room)
        token = int(allowed[choose(scores[allowed], self.generator)])
        self.written = self.written.append(grammar, token, float(scores[token]))
        self.unread = (token, *grammar.forced(self.written.state))

    def count_forced(self, grammar: Grammar, scores: Scores) -> None:
        """Write the forced tokens, by the log probabilities after each unread one."""
        for token, row in zip(self.unread[1:], scores, strict=False):
            self.written = self.written.append(grammar, token, float(row[token]))


def _choose(
    scores: Scores,
    generator: np.random.Generator,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """The index of the highest score at temperature 0, else one drawn from the softmax of those that are kept."""
    if temperature == 0:
        return int(scores.argmax())
    shares = np.exp((scores - scores.max()) / temperature)
    kept = None if top_k is None and top_p is None else _kept(shares, top_k, top_p)
    cumulative = (shares if kept is None else shares[kept]).cumsum()
    index = int(cumulative.searchsorted(generator.random() * cumulative[-1]))
    return index if kept is None else int(kept[index])


def _kept(shares: Scores, top_k: int | None, top_p: float | None) -> NDArray[np.int64]:
    """The indices of what top-k and then top-p leave, ascending, so that one that cuts nothing changes no draw."""
    order: NDArray[np.int64] = np.argsort(-shares, kind="stable")[:top_k]
    if top_p is not None and top_p < 1:
        sums: Scores = shares[order].cumsum()
        order = order[: 1 + int(sums.searchsorted(top_p * float(sums[-1])))]
    return np.sort(order)


def _generators(seed: Sequence[int], n: int) -> list[np.random.Generator]:
    """A generator for each of n samples; sample k's is a function of the seed and k."""
    seeds = (np.random.SeedSequence(seed, spawn_key=(k,)) for k in range(n))
    return [np.random.Generator(np.random.Philox(it)) for it in seeds]
