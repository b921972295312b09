"""Ways to find a list for a function: fixed lists, random ones, those of similar functions; models are in `models`.

A method tries its lists on every case in an order of its own, so that its best after n of them is known for each n
up to its budget. -Oz is not among them: that is the tables' business.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol

from secondpass.corpus.store import Corpus
from secondpass.evaluate.cases import Case, Trials, Tried
from secondpass.evaluate.similar import Neighbours
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY_VERSION
from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset
from secondpass.tuner.finish import Finish, finished
from secondpass.tuner.labels import Label
from secondpass.tuner.tails import tails
from secondpass.tuner.work import Searched

_FINISHED = 2
"""One more whenever lists come to be finished otherwise than before."""
_LONGEST_RANDOM = 20
"""Passes of a random list at most."""


class Method(Protocol):
    """A way to find lists.

    Attributes:
        name: for tables.
        facts: everything the results depend on, the function excepted; of values that JSON knows.
    """

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """Try what there is to try on each case; in any order."""
        ...


@dataclass(frozen=True)
class FixedLists:
    """The same lists for every function: the first ones of the shipped coreset."""

    size: int
    workers: int = 0
    name: str = "coreset"

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `Method`."""
        return {"lists": [str(it) for it in coreset(Objective.INSTRUCTIONS, self.size)], "llvm": load().version}

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """See `Method`."""
        lists = [it.words for it in coreset(Objective.INSTRUCTIONS, self.size)]
        return compile_lists(cases, {case.key: lists for case in cases}, self.workers)


@dataclass(frozen=True)
class RandomLists:
    """Random lists of the vocabulary, others for each function."""

    size: int
    seed: int = 0
    workers: int = 0
    name: str = "random lists"

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `Method`."""
        drawn = {"size": self.size, "seed": self.seed, "longest": _LONGEST_RANDOM}
        return drawn | {"vocabulary": VOCABULARY_VERSION, "llvm": load().version}

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """See `Method`."""
        words = load().words
        return compile_lists(cases, {case.key: self._drawn(case.key, words) for case in cases}, self.workers)

    def _drawn(self, key: str, words: Sequence[str]) -> list[Words]:
        rng = random.Random(f"{self.seed} {key}")
        return [tuple(rng.choices(words, k=rng.randint(1, _LONGEST_RANDOM))) for _ in range(self.size)]


@dataclass(frozen=True)
class SimilarFunctions:
    """The labels of the training functions that look most alike (`similar.Neighbours`)."""

    corpus: Corpus = field(repr=False)
    labels: Mapping[str, Label] = field(repr=False)
    size: int
    workers: int = 0
    name: str = "nearest neighbours"

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `Method`."""
        rows = sorted((key, label.best.passes) for key, label in self.training.items())
        made = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        return {"size": self.size, "training": made, "llvm": load().version}

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """See `Method`."""
        training = self.training
        order = self.corpus.in_order_of_shards(training)
        neighbours = Neighbours(map(self.corpus.text, order), [training[key] for key in order])
        lists = neighbours.lists([case.text for case in cases], self.size)
        return compile_lists(cases, {case.key: found for case, found in zip(cases, lists)}, self.workers)

    @cached_property
    def training(self) -> dict[str, Label]:
        """The labels to take, by function: empty where the corpus has no labelled training functions."""
        return {it.hash: self.labels[it.hash] for it in self.corpus.select("train") if it.hash in self.labels}


@dataclass(frozen=True)
class Finished:
    """Lists that another method tried, finished: of each function one list, the best.

    Args:
        of: the other.
        tried: its trials, by key.
        choice: which of the trials count.
        chosen: what to call that choice.
        workers: processes; as many as there are cores where 0.
    """

    of: Method
    tried: Mapping[str, Trials] = field(repr=False)
    choice: Callable[[Trials], Sequence[Tried]]
    chosen: str
    workers: int = 0

    @property
    def name(self) -> str:
        """See `Method`."""
        return f"{self.of.name}, {self.chosen}, finished"

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `Method`."""
        made = asdict(tails(Objective.INSTRUCTIONS))
        return {"of": self.of.facts, "chosen": self.chosen, "tails": made, "edition": _FINISHED}

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """See `Method`."""
        usable = {
            case.key: dict.fromkeys(it.passes for it in self.choice(self.tried[case.key]) if it.count is not None)
            for case in cases
        }
        yield from (Trials(key, (), 0.0) for key, lists in usable.items() if not lists)
        waiting = {key: lists for key, lists in usable.items() if lists}
        modules = {case.key: case.bitcode for case in cases}
        unit = Finish(Objective.INSTRUCTIONS, tails(Objective.INSTRUCTIONS))
        with Sandbox(self.workers, reproducible=True) as sandbox:
            for key, outcome in finished(waiting, modules.__getitem__, unit, sandbox):
                found, compiles = (outcome.found, outcome.compiles) if isinstance(outcome, Searched) else ((), 0)
                best = tuple(Tried(it.passes, it.value) for it in found)
                yield Trials(key, best, outcome.seconds, answers=0, compiles=compiles)


def compile_lists(cases: Sequence[Case], lists: Mapping[str, Sequence[Words]], workers: int = 0) -> Iterator[Trials]:
    """Compile each case's lists; those of one case in order, the cases as they are done."""

    def jobs() -> Iterable[Job]:
        for case in cases:
            yield Job(case.bitcode, tuple(str(PassList.of(*words)) for words in lists[case.key]), case.key)

    with Sandbox(workers, reproducible=True) as sandbox:
        for job, outcomes in sandbox.run(jobs()):
            counts = (it.instructions if it.ok else None for it in outcomes)
            tried = tuple(Tried(words, count) for words, count in zip(lists[job.name], counts))
            yield Trials(job.name, tried, sum(it.seconds for it in outcomes))
