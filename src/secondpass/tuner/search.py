"""The search on one function: known lists first, then walks through its states, then nothing superfluous.

Behind each new best state, and some of the next best, known tails are tried. Any other proposal is another
function's winner, mostly of one to which the first lists did the same, or a walk from the unoptimised
function, a walk on from one of the best states found so far, or the list of such a state with a few passes
put in, replaced or dropped; and behind all of these, unless bytes count, comes the tail that helps behind
nearly every list.
Passes are drawn as winners make them likely, or any alike. The value is looked at after every pass, so a
list tries all its beginnings too. Anytime: whatever it has found when its compiles are spent is the
result, and more compiles never make it worse. A compile is a list that has to be run for at least one
pass; lists whose way through the states is known already cost nothing.
"""

from __future__ import annotations

import math
import random
import time
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from secondpass.errors import LLVMError
from secondpass.llvm.passes import Words
from secondpass.tuner.explorer import Explorer, State
from secondpass.tuner.knowledge import Draw, Knowledge, Sampler
from secondpass.tuner.neighbours import Neighbours

OZ: Words = ("default<O2>",)

LONGEST = 40
"""Passes of the longest list."""
KNOWN = 20
"""Lists of the knowledge that every function meets; more of them help less than winners drawn at random."""
_WINNERS, _WINNERS_LATER, _LATER = 0.9, 0.5, 100
"""Share of the draws that are winners of other functions, as they are, one drawn before costs nothing; and their share
after so many compiles, when most of what is still found is found by walks."""
_NEAR = 0.8
"""Share of the winners that are those of the most similar functions, where these are known."""
_FROM_THE_START = 0.6
"""Share of the other proposals that start at the unoptimised function."""
_SPREAD = 12.0
"""Mean rank of the states at which the others start."""
_CHANGED = 0.5
"""Share of the others that change such a state's list; the rest append to it."""
_STEPS = 15.0
"""Mean number of passes, after the first, that a walk appends."""
_CHANGES = 2.0
"""Mean number of changes to a list, after the first."""
_PUT_IN, _REPLACED = 0.5, 0.3
"""Shares of the changes; the rest drop a pass."""
_ANY = 0.6
"""Share of the passes drawn from the whole vocabulary alike."""
_CHANCES, _REDRAWS = 2, 6
"""Runs in which a pass must change something to be drawn further, and draws until one has."""
_NEARLY = 1.05
"""Bytes are measured on the way where instructions are at most this much more than the best state's: native code
takes ten times longer than a pass."""
_SMALLEST = 2
"""A value at which nothing is left to search for: one instruction is a return."""


@dataclass(frozen=True, slots=True)
class Found:
    """A list and its value, confirmed by compiling it in one piece."""

    passes: Words
    value: int


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a search may spend.

    Attributes:
        compiles: lists whose value is found out.
        patience: stop when so many compiles in a row improved nothing; 0 for never.
        others: how many next best lists to report, distinct in effect.
        minimise: drop from the best list what it does not need, which may take some compiles more.
        seconds: of wall time, after which no other list is begun.
    """

    compiles: int
    patience: int = 0
    others: int = 7
    minimise: bool = True
    seconds: float = math.inf


class Search:
    """The search on one module.

    Args:
        explorer: its states.
        banned: lists that killed a process before: they are not run, nor their last pass where the others lead to.
        trace: called with the number of compiles and the best value after each compile.
    """

    def __init__(
        self,
        explorer: Explorer,
        banned: frozenset[Words] = frozenset(),
        trace: Callable[[int, int], None] | None = None,
    ) -> None:
        self._explorer = explorer
        self._banned = banned
        for words in sorted(banned, key=len):
            explorer.forbid(words)
        self._trace = trace
        self.compiles = 0
        self.lists: dict[State, Words] = {}
        """The shortest list known to each state that has a value."""
        self.best: State | None = None
        self._last_improvement = 0
        self._started = time.monotonic()
        self._ranked: list[tuple[int, int, Words]] = []
        self._followed: State | None = None
        self._tail = 0
        self._near: Draw[Words] | None = None

    def try_list(self, words: Words) -> State | None:
        """Run a list as far as need be; the state it ends in, None where LLVM refuses it or it is banned."""
        explorer = self._explorer
        state = explorer.known(words)
        if state is not None and state in self.lists:
            if len(words) < len(self.lists[state]):
                self.lists[state] = words
            return state
        if state is None:
            if any(words[: len(it)] == it for it in self._banned):
                return None
            self.compiles += 1
        state, useful = explorer.root, ()
        try:
            for state, useful in explorer.along(words):
                self._see(state, useful, on_the_way=True)
        except LLVMError:
            return None
        self._see(state, useful or words, on_the_way=False)
        return state if state in self.lists else None

    def _see(self, state: State, words: Words, *, on_the_way: bool) -> None:
        """Take note of a state and of a list that leads there."""
        known = self.lists.get(state)
        if known is not None:
            if len(words) < len(known):
                self.lists[state] = words
            return
        slow = on_the_way and self._explorer.value_is_slow
        if slow and self.best is not None and state.instructions > _NEARLY * self.best.instructions:
            return
        value = self._explorer.value(state)
        if value is None:
            return
        self.lists[state] = words
        if len(words) < LONGEST:
            insort(self._ranked, (value, len(words), words))
        if self.best is None or value < self.value(self.best):
            self.best = state
            self._last_improvement = self.compiles
            if self._trace is not None:
                self._trace(self.compiles, value)

    def value(self, state: State) -> int:
        """The objective's value of a state that has one."""
        value = self._explorer.value(state)
        assert value is not None
        return value

    def run(
        self,
        knowledge: Knowledge,
        sampler: Sampler,
        budget: Budget,
        rng: random.Random,
        first: Sequence[Words] = (),
        neighbours: Neighbours | None = None,
    ) -> None:
        """Spend the budget.

        Args:
            knowledge: lists to try before any are made.
            sampler: of the knowledge.
            budget: how much to spend.
            rng: decides every draw.
            first: lists to try before the knowledge's.
            neighbours: tells whose winners to prefer, where its probes are among the lists that were tried.
        """
        self.try_list(OZ)
        for words in (*first, *knowledge.lists[:KNOWN]):
            if self._spent(budget):
                break
            self.try_list(words)
        self._near = None if neighbours is None or self._spent(budget) else self._winners_near(neighbours)
        # Where values are slow only ends are looked at, and a tail would take the place of what is before it.
        tail = () if self._explorer.value_is_slow else knowledge.tails.first
        idle = 0
        while not self._spent(budget) and idle < 200:
            before = self.compiles
            words = self._followed_by(knowledge.tails.others)
            self.try_list(words or _tailed(self._proposal(sampler, rng), tail))
            idle = 0 if self.compiles > before else idle + 1

    def minimise(self, words: Words, seconds: float = math.inf) -> Words:
        """Drop every pass whose removal does not hurt, from the back: later passes depend on earlier ones.

        Args:
            words: the list.
            seconds: since the search began, after which no other list is begun.
        """
        state = self.try_list(words)
        if state is None:
            return words
        words, value = self._explorer.useful(words) or words, self.value(state)
        shrinking = True
        while shrinking and len(words) > 1:
            shrinking = False
            for index in reversed(range(len(words))):
                shorter = words[:index] + words[index + 1 :]
                if not shorter or self._seconds > seconds:
                    return words
                reached = self.try_list(shorter)
                if reached is not None and self.value(reached) <= value:
                    words, value, shrinking = shorter, self.value(reached), True
        return words

    def ranked(self) -> Iterator[tuple[int, Words]]:
        """Values with their shortest lists, best first, one for each state."""
        return iter(sorted(((self.value(state), words) for state, words in self.lists.items()), key=_rank))

    def confirmed(self, lists: Iterable[Words], most: int, *, distinct: bool = False) -> list[Found]:
        """The first lists of a sequence that can be compiled in one piece, with their values then.

        Args:
            lists: the sequence.
            most: lists wanted.
            distinct: only those that leave other code than the ones before.
        """
        found: list[Found] = []
        seen = set[str]() if distinct else None
        for words in lists:
            if len(found) == most:
                break
            value = None if words in self._banned else self._explorer.confirm(words, seen)
            if value is not None:
                found.append(Found(words, value))
        return found

    # Inside

    @property
    def _seconds(self) -> float:
        """Wall time since the search began."""
        return time.monotonic() - self._started

    def _spent(self, budget: Budget) -> bool:
        if self.compiles >= budget.compiles or self._seconds > budget.seconds:
            return True
        if self.best is not None and self.value(self.best) <= _SMALLEST:
            return True
        return bool(budget.patience) and self.compiles - self._last_improvement >= budget.patience

    def _winners_near(self, neighbours: Neighbours) -> Draw[Words] | None:
        """What helped the functions most like this one; None where -Oz, or all probes, fail on it or were not tried.

        A single probe of which that is true counts as one that does what -Oz does.
        """
        oz, *reached = (self._value_after(words) for words in (OZ, *neighbours.probes))
        if oz is None or all(it is None for it in reached):
            return None
        winners = neighbours.winners_for(oz, [oz if it is None else it for it in reached])
        return Draw(winners) if winners else None

    def _value_after(self, words: Words) -> int | None:
        """The value of a list that was tried; None for any other, and for one that fails."""
        state = self._explorer.known(words)
        return self.value(state) if state in self.lists else None

    def _followed_by(self, tails: Sequence[Words]) -> Words | None:
        """The best list with the next tail behind it, or in turn one of the next best; None once all were tried."""
        if self.best is not self._followed:
            self._followed, self._tail = self.best, 0
        while self._tail < len(tails):
            number, self._tail = self._tail, self._tail + 1
            rank = 0 if number % 2 == 0 else number // 2 + 1
            if rank < len(self._ranked):
                return (*self._ranked[rank][2], *tails[number])[:LONGEST]
        return None

    def _proposal(self, sampler: Sampler, rng: random.Random) -> Words:
        """A winner, or a list that leads on from the start or from a good state, or to its neighbourhood."""
        winners = _WINNERS if self.compiles < _LATER else _WINNERS_LATER
        if rng.random() < winners:
            if self._near is not None and rng.random() < _NEAR:
                return self._near(rng)
            if (winner := sampler.winner(rng)) is not None:
                return winner
        words: list[str] = []
        if rng.random() >= _FROM_THE_START and self._ranked:
            rank = min(int(rng.expovariate(1 / _SPREAD)), len(self._ranked) - 1)
            words += self._ranked[rank][2]
            if words and rng.random() < _CHANGED:
                return self._changed(words, sampler, rng)
        for _ in range(1 + int(rng.expovariate(1 / _STEPS))):
            if len(words) >= LONGEST:
                break
            words.append(self._drawn(words[-1] if words else None, sampler, rng))
        return tuple(words)

    def _changed(self, words: list[str], sampler: Sampler, rng: random.Random) -> Words:
        """The same list with a few passes put in, replaced or dropped."""
        for _ in range(1 + int(rng.expovariate(1 / _CHANGES))):
            place, kind = rng.randrange(len(words) + 1), rng.random()
            if kind < _PUT_IN or place == len(words):
                words.insert(place, self._drawn(words[place - 1] if place else None, sampler, rng))
            elif kind < _PUT_IN + _REPLACED:
                words[place] = self._drawn(words[place - 1] if place else None, sampler, rng)
            elif len(words) > 1:
                del words[place]
        return tuple(words)

    def _drawn(self, before: str | None, sampler: Sampler, rng: random.Random) -> str:
        for _ in range(_REDRAWS):
            word = sampler.any(rng) if rng.random() < _ANY else sampler.step(before, rng)
            if not self._idle(word):
                return word
        return sampler.any(rng)

    def _idle(self, word: str) -> bool:
        """Whether a pass has never changed anything on this function: one without loops needs no loop passes."""
        return self._explorer.runs[word] >= _CHANCES and not self._explorer.effects[word]


def _tailed(words: Words, tail: Words) -> Words:
    """A list with the tail that helps behind nearly every one: what a list leaves undone hides what it is worth."""
    return (*words[: LONGEST - len(tail)], *tail)


def _rank(item: tuple[int, Words]) -> tuple[int, int, Words]:
    return item[0], len(item[1]), item[1]
