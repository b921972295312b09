"""Answers in the order of their probability: a tree whose branches share what they have in common.

    tree = Tree(network, grammar, prefix, root, room)
    greedy = tree.finish([tree.root])[0]
    other = tree.finish([tree.taken(greedy.choices[0], index)])[0]     # the same up to a place, then another token
    tree.beams(10)                                                     # what beam search finds

A branch keeps the KV cache of its tokens, so what leaves it reads one token and goes on. Only lists branch: whatever a
model holds of its counts, the same list is the same list, and no two answers of a tree have one. The module
knows ids and logits; it knows nothing of models and text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from secondpass.engines.grammar import Grammar, Place
from secondpass.engines.sampling import Logits, Scores, Written, log_probabilities
from secondpass.llvm.passes import Words

_BRANCHING = (Place.FIRST_LINE, Place.HEAD, Place.LIST)
"""Where in an answer another token makes another list."""


class Network(Protocol):
    """A model, asked a step at a time; see `onnx_network.Network`. Caches are its own business."""

    def read_one(self, tokens: NDArray[np.int64], prefix: Any, owns: Sequence[Any]) -> tuple[Logits, list[Any]]:
        """Read one token in each of several branches that may have read differently many."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """An answer that is begun.

    Attributes:
        written: the tokens so far.
        own: the KV cache of those that were read after the prefix: all, or all but the last.
        scores: log probabilities of the next token where all were read, (vocabulary,); else None.
    """

    written: Written
    own: Any
    scores: Scores | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A place of an answer, and what might have stood there.

    Attributes:
        branch: the answer up to there.
        allowed: the ids that might have come next.
        scores: their log probabilities.
    """

    branch: Branch
    allowed: NDArray[np.int64]
    scores: Scores


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """An answer that is complete, with the places at which another token would have made another list."""

    written: Written
    choices: tuple[Choice, ...] = ()


class Tree:
    """The answers to one sequence.

    Args:
        network: the model.
        grammar: what an answer may look like.
        prefix: the KV cache of what was read before any answer.
        root: where all answers begin; of `trying_again` its last token is unread.
        room: tokens the rest of an answer may have.
    """

    def __init__(self, network: Network, grammar: Grammar, prefix: Any, root: Branch, room: int) -> None:
        self._network, self._grammar, self._prefix = network, grammar, prefix
        self._last = len(root.written.tokens) + room
        self.root = root

    def trying_again(self) -> Tree:
        """The answers to a feedback that are not sure of the list before; its sequence has no answer begun."""
        choice = self.choices(self.root)
        again = self.taken(choice, int(choice.allowed.searchsorted(self._grammar.try_again)))
        return Tree(self._network, self._grammar, self._prefix, again, self._last - len(again.written.tokens))

    def choices(self, branch: Branch) -> Choice:
        """What may come next in a branch that was read."""
        assert branch.scores is not None
        allowed = self._grammar.allowed(branch.written.state, self._last - len(branch.written.tokens))
        return Choice(branch, allowed, branch.scores[allowed])

    def taken(self, choice: Choice, index: int) -> Branch:
        """The branch that goes on with one of the tokens that might come next."""
        before, token = choice.branch, int(choice.allowed[index])
        return Branch(before.written.append(self._grammar, token, float(choice.scores[index])), before.own)

    def finish(self, branches: Sequence[Branch]) -> list[Path]:
        """Go on with the most probable token at each step, all branches in lockstep."""
        passed: list[list[Choice]] = [[] for _ in branches]
        ends = list(branches)
        while live := [number for number, it in enumerate(ends) if not it.written.state.ended]:
            for number, branch in zip(live, self._read([ends[number] for number in live])):
                choice = self.choices(branch)
                if branch.written.state.place in _BRANCHING:
                    passed[number].append(choice)
                ends[number] = self.taken(choice, int(choice.scores.argmax()))
        return [Path(end.written, tuple(choices)) for end, choices in zip(ends, passed)]

    def begun_with(self, lists: Sequence[Words]) -> list[Branch | None]:
        """An answer that is begun with each of some lists; None where no answer can hold one.

        What lists have in common is read once, and all of them in lockstep.
        """
        tokens = [self._grammar.tokens_of(passes) for passes in lists]
        begun: dict[tuple[int, ...], Branch] = {(): self.root}
        for depth in range(max((len(it) for it in tokens if it is not None), default=0)):
            longer = {it[: depth + 1] for it in tokens if it is not None and len(it) > depth and it[:depth] in begun}
            heads = sorted({it[:depth] for it in longer})
            begun |= zip(heads, self._read([begun[it] for it in heads]))
            for it in longer:
                choice = self.choices(begun[it[:depth]])
                index = int(choice.allowed.searchsorted(it[depth]))
                if index < len(choice.allowed) and choice.allowed[index] == it[depth]:
                    begun[it] = self.taken(choice, index)
        return [None if it is None else begun.get(it) for it in tokens]

    def beams(self, n: int) -> list[Path]:
        """The n most probable lists that beam search of width n finds, completed; the most probable first."""
        active, complete = [self.root], list[Branch]()
        while active:
            ahead = [self.taken(*it) for it in self._most_probable(self._read(active), n)]
            complete += [it for it in ahead if it.written.state.place not in _BRANCHING]
            complete = sorted(complete, key=lambda it: -it.written.log_probability)[:n]
            least = complete[-1].written.log_probability if len(complete) == n else -np.inf
            active = [it for it in ahead if it.written.state.place in _BRANCHING]
            active = [it for it in active if it.written.log_probability > least]  # probabilities only fall
        return self.finish(complete)

    def _most_probable(self, branches: Sequence[Branch], n: int) -> list[tuple[Choice, int]]:
        """The n most probable ways to go on from several branches: choices with the index of a token."""
        choices = [self.choices(it) for it in branches]
        totals = np.concatenate([it.branch.written.log_probability + it.scores for it in choices])
        owners = np.repeat(np.arange(len(choices)), [len(it.scores) for it in choices])
        starts = np.cumsum([0, *(len(it.scores) for it in choices)])
        best = np.argsort(-totals, kind="stable")[:n]
        return [(choices[owners[at]], int(at - starts[owners[at]])) for at in best]

    def _read(self, branches: Sequence[Branch]) -> list[Branch]:
        """The same branches, all their tokens read."""
        unread = [it for it in branches if it.scores is None]
        if not unread:
            return list(branches)
        tokens = np.array([it.written.tokens[-1] for it in unread], dtype=np.int64)
        logits, owns = self._network.read_one(tokens, self._prefix, [it.own for it in unread])
        scores = log_probabilities(logits)
        read = iter(replace(it, own=own, scores=row) for it, own, row in zip(unread, owns, scores))
        return [next(read) if it.scores is None else it for it in branches]
