"""The tuner's units of work: what a worker does with one function. Plain values in, plain values out.

Both units are functions of their arguments alone, whatever machine runs them and in whatever order, so
a run that was interrupted ends as one that was not. But for their limits of time: a search that reaches one,
which the largest functions do, has tried as many lists as the machine was fast.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Job, Outcome, Status, Work
from secondpass.llvm.library import load
from secondpass.llvm.passes import Words
from secondpass.prompt import Objective
from secondpass.tuner import neighbours
from secondpass.tuner.explorer import RUNNING, Explorer
from secondpass.tuner.knowledge import Knowledge, Sampler
from secondpass.tuner.search import OZ, Budget, Found, Search

_MOST_DEATHS = 12
"""Workers that may die on one function before it is given up."""
_CONSIDERED = 3
"""States whose lists are compiled in one piece, for each list that is wanted: some of them leave the same code."""
_LONGEST = 600.0
"""Seconds in which a unit of work need not say anything: it has limits of its own, for each pass and for itself."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How functions are searched.

    Attributes:
        objective: what to make small.
        knowledge: lists and pass statistics to start from.
        budget: compiles, and when to stop early.
        seed: with a function's hash it decides every draw.
        step_seconds: longest a single pass may run.
        traced: report how the best value fell with the compiles.
    """

    objective: Objective
    knowledge: Knowledge
    budget: Budget
    seed: int = 0
    step_seconds: float = 5.0
    traced: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One function to work on.

    Attributes:
        key: its hash.
        deaths: the lists at which a worker died on it, in order.
        lists: what to try: for a broadcast nothing else, for a search before anything else.
        best: for a broadcast: what is known already, best first.
    """

    key: str
    deaths: tuple[Words, ...] = ()
    lists: tuple[Words, ...] = ()
    best: tuple[Found, ...] = ()

    @property
    def banned(self) -> frozenset[Words]:
        """The lists that killed two workers: one death may have come from outside."""
        return frozenset(words for words in self.deaths if self.deaths.count(words) > 1)

    def to_text(self) -> str:
        """As a sandbox job's item."""
        found = [[it.passes, it.value] for it in self.best]
        return json.dumps({"key": self.key, "deaths": self.deaths, "lists": self.lists, "best": found})

    @classmethod
    def from_text(cls, text: str) -> Item:
        """The inverse of `to_text`."""
        data = json.loads(text)
        found = tuple(Found(tuple(passes), value) for passes, value in data["best"])
        return cls(data["key"], tuple(map(tuple, data["deaths"])), tuple(map(tuple, data["lists"])), found)


@dataclass(frozen=True, slots=True)
class Searched(Outcome):
    """What a unit of work found.

    Attributes:
        oz: the value of -Oz.
        found: the best list, then the next best, distinct in effect.
        compiles: lists whose value was found out; that what is reported is compiled once more does not count.
        trace: compiles, seconds and value whenever the best fell, where asked for.
    """

    oz: int = 0
    found: tuple[Found, ...] = ()
    compiles: int = 0
    trace: tuple[tuple[int, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SearchUnit:
    """Search a function from the start. Called in a worker with its bitcode and an `Item`."""

    settings: Settings

    def prepare(self) -> None:
        """Make the sampler and read the table of neighbours."""
        _sampler(self.settings.knowledge)
        neighbours.shipped(self.settings.objective)

    def __call__(self, bitcode: bytes, text: str) -> Outcome:
        """Search, minimise, confirm."""
        item, settings = Item.from_text(text), self.settings
        trace: list[tuple[int, float, int]] = []
        started = time.perf_counter()

        def note(compiles: int, best: int) -> None:
            if settings.traced:
                trace.append((compiles, time.perf_counter() - started, best))

        forget_stderr()
        try:
            with Explorer(bitcode, settings.objective, settings.step_seconds) as explorer:
                search = Search(explorer, item.banned, note)
                rng = random.Random(f"{settings.seed} {item.key}")
                sampler, near = _sampler(settings.knowledge), neighbours.shipped(settings.objective)
                search.run(settings.knowledge, sampler, settings.budget, rng, item.lists, near)
                return _result(explorer, search, settings.budget, trace, started)
        except LLVMError as error:
            return Outcome(Status.INVALID, str(error))


@dataclass(frozen=True, slots=True)
class BroadcastUnit:
    """Try lists that won elsewhere on a function that was searched before."""

    settings: Settings

    def __call__(self, bitcode: bytes, text: str) -> Outcome:
        """Try, minimise what is better, confirm."""
        item, settings = Item.from_text(text), self.settings
        started = time.perf_counter()
        forget_stderr()
        try:
            with Explorer(bitcode, settings.objective, settings.step_seconds) as explorer:
                search = Search(explorer, item.banned)
                before = min((it.value for it in item.best), default=None)
                for found in item.best:
                    search.try_list(found.passes)
                known = search.compiles
                for words in item.lists:
                    search.try_list(words)
                if before is not None and search.best is not None and search.value(search.best) >= before:
                    return Searched(Status.OK, found=item.best, compiles=search.compiles - known)
                search.try_list(OZ)
                result = _result(explorer, search, settings.budget, [], started, known=item.best)
                return replace(result, compiles=result.compiles - known) if isinstance(result, Searched) else result
        except LLVMError as error:
            return Outcome(Status.INVALID, str(error))


def after_death(item: Item, outcome: Outcome) -> Item | None:
    """The same work again, knowing where its worker died; None where that does not help.

    A death may have come from outside, and counts when it comes again. Nobody but the pass itself takes all memory.
    """
    words = culprit(outcome.last_words)
    if words is None or len(item.deaths) >= _MOST_DEATHS:
        return None
    times = 2 if outcome.status is Status.MEMORY else 1
    again = replace(item, deaths=(*item.deaths, *[words] * times))
    return None if OZ in again.banned else again


def outcomes(
    items: Mapping[str, Item],
    source: Callable[[str], bytes],
    unit: Work,
    run: Callable[[Iterable[Job]], Iterator[tuple[Job, list[Outcome]]]],
) -> Iterator[tuple[str, Outcome]]:
    """Do a unit of work on many functions, on each again as long as a worker's death taught something (`after_death`).

    Args:
        items: what to do, by the functions' keys.
        source: a function's module.
        unit: what does it.
        run: of a sandbox, or of a cluster.

    Yields:
        Keys as they are done, each with a `Searched`, or why there is none.
    """
    while items:
        again: dict[str, Item] = {}
        jobs = (Job(source(key), (item.to_text(),), key, each=unit, seconds=_LONGEST) for key, item in items.items())
        for job, (outcome,) in run(jobs):
            retry = None if isinstance(outcome, Searched) else after_death(items[job.name], outcome)
            if retry is None:
                yield job.name, outcome
            else:
                again[job.name] = retry
        items = again


def culprit(last_words: str) -> Words | None:
    """The list a dead worker was at."""
    found = re.findall(f"^{RUNNING}(.+)$", last_words, re.MULTILINE)
    return tuple(found[-1].split()) if found else None


def _result(
    explorer: Explorer,
    search: Search,
    budget: Budget,
    trace: list[tuple[int, float, int]],
    started: float,
    known: tuple[Found, ...] = (),
) -> Outcome:
    """What a search has found, compiled in one piece, beside the best of what was known before."""
    oz = explorer.confirm(OZ)
    if oz is None or search.best is None:
        return Outcome(Status.BROKEN, "-Oz fails on it")
    others, best = budget.others, search.lists[search.best]
    best = search.minimise(best, 2 * budget.seconds) if budget.minimise else explorer.useful(best) or best
    ranked = (explorer.useful(words) or words for _, words in islice(search.ranked(), _CONSIDERED * (others + 1)))
    found = search.confirmed(dict.fromkeys((best, *ranked)), others + 1, distinct=True)
    found += [it for it in known[:1] if it.passes not in {other.passes for other in found}]
    found.sort(key=lambda it: (it.value, len(it.passes)))
    if not found or found[0].value > oz:
        found.insert(0, Found(OZ, oz))
    seconds = time.perf_counter() - started
    return Searched(
        Status.OK,
        seconds=seconds,
        oz=oz,
        found=tuple(found[: others + 1]),
        compiles=search.compiles,
        trace=tuple(trace),
    )


_samplers: dict[str, Sampler] = {}


def _sampler(knowledge: Knowledge) -> Sampler:
    """The sampler of a knowledge, made once in a process."""
    if knowledge.digest not in _samplers:
        _samplers.clear()
        _samplers[knowledge.digest] = Sampler(knowledge, load().words)
    return _samplers[knowledge.digest]


def forget_stderr() -> None:
    """Empty this worker's stderr, a file in memory: it holds what earlier functions ran."""
    os.ftruncate(2, 0)
    os.lseek(2, 0, os.SEEK_SET)
