"""All functions of a corpus: searched in rounds, then the winners of all tried on each.

A round's functions are searched with what the rounds before have taught, so later ones start better
informed. Rounds depend on the functions' hashes and the seed alone, never on which worker was faster:
a run that is killed and started again ends with the same labels. A run that finds labels of fewer functions
searches the new ones, and then tries the winners of all on all.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from secondpass.corpus.store import Corpus
from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.passes import Words
from secondpass.progress import Progress
from secondpass.tuner.coreset import shipped
from secondpass.tuner.knowledge import Knowledge
from secondpass.tuner.labels import Label, LabelStore, true_of
from secondpass.tuner.work import BroadcastUnit, Item, Searched, SearchUnit, Settings, outcomes

_FIRST_ROUND, _LARGEST_ROUND = 256, 8_192
_BROADCAST_LISTS = 40
_MOST_BROADCASTS = 4
_BROADCASTS = "broadcasts"
"""The note of which functions a run's broadcasts are for, and how many rounds were before."""
_STILL, _FEWEST = 0.0005, 2
"""Share of the functions, and number, that a list must be best on to be tried on the others: below it nothing moves."""
_FLUSH_SECONDS = 5.0


class Runner(Protocol):
    """Whatever runs jobs: the sandbox on this machine, or a cluster."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, list[Outcome]]]:
        """Yield each job with its outcomes, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did.

    Attributes:
        functions: labelled now.
        before: of these, what had a label already, which was not searched again.
        improved: better than -Oz.
        oz, best: sums of the objective's values.
        compiles: spent in all, earlier runs included.
        failed: functions given up, with the reason.
    """

    functions: int
    before: int
    improved: int
    oz: int
    best: int
    compiles: int
    failed: dict[str, str]

    @property
    def gain(self) -> float:
        """Share by which all functions together are smaller than at -Oz."""
        return 1 - self.best / self.oz if self.oz else 0.0


def tune(
    corpus: Corpus,
    keys: Sequence[str],
    store: LabelStore,
    settings: Settings,
    runner: Runner,
    progress: Progress | None = None,
) -> Report:
    """Label functions.

    Args:
        corpus: where their code is.
        keys: the functions' hashes.
        store: gets the labels; what it has already is not searched again, unless it was made of another function of
            the same text (`true_of`).
        settings: for every function; its knowledge is what the first round starts from, the shipped one
            when empty.
        runner: does the work.
        progress: called with what is being done, functions done and in all.
    """
    keys = sorted(keys)
    settings = settings if settings.knowledge.lists else replace(settings, knowledge=shipped(settings.objective))
    run = _Run(corpus, store, settings, runner, progress or (lambda what, done, total: None))
    before = sum(map(run.is_labelled, keys))
    for number, (start, end) in enumerate(rounds(len(keys))):
        run.search(f"round {number + 1}: searching", keys[start:end], keys[:start])
    labelled = [key for key in keys if run.is_labelled(key)]
    run.broadcast(labelled)
    store.merge()
    labels = [store.labels[key] for key in labelled]
    return Report(
        len(labels),
        before,
        sum(label.gain > 0 for label in labels),
        sum(label.oz for label in labels),
        sum(label.best.value for label in labels),
        sum(label.compiles for label in labels),
        run.failed,
    )


def rounds(functions: int) -> Iterator[tuple[int, int]]:
    """The rounds of a run, as ranges of its functions: small at first, when every winner is news."""
    start, size = 0, _FIRST_ROUND
    while start < functions:
        yield start, min(start + size, functions)
        start, size = start + size, min(2 * size, _LARGEST_ROUND)


def winners(labels: Iterable[Label]) -> Counter[Words]:
    """How many functions each list is the best of, of those where -Oz is not."""
    return Counter(label.best.passes for label in labels if label.gain > 0)


def most_common(counted: Counter[Words], most: int, without: Iterable[Words] = ()) -> list[Words]:
    """The lists that win most often, shorter ones first among equals: always the same order."""
    known = set(without)
    ranked = sorted(counted, key=lambda words: (-counted[words], len(words), words))
    return [words for words in ranked if words not in known][:most]


def _digest(keys: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()


class _Run:
    """A run's state."""

    def __init__(
        self, corpus: Corpus, store: LabelStore, settings: Settings, runner: Runner, progress: Progress
    ) -> None:
        self._corpus, self._store, self._settings = corpus, store, settings
        self._runner, self._progress = runner, progress
        self.failed: dict[str, str] = {}

    def is_labelled(self, key: str) -> bool:
        """Whether a function has a label of its own."""
        label = self._store.labels.get(key)
        return label is not None and true_of(label, self._corpus.entries[key], self._settings.objective)

    def search(self, what: str, keys: Sequence[str], earlier: Sequence[str]) -> None:
        """Search a round's functions with what the earlier rounds' taught."""
        waiting = [key for key in keys if not self.is_labelled(key)]
        if not waiting:
            return
        settings = replace(self._settings, knowledge=self._learned(earlier))
        done = len(keys) - len(waiting)

        def enter(key: str, result: Searched | None) -> None:
            if result is not None:
                self._store.add(Label(key, result.oz, result.found, result.compiles))

        self._work(what, {key: Item(key) for key in waiting}, SearchUnit(settings), enter, done)

    def broadcast(self, keys: Sequence[str]) -> None:
        """Try the winners of all labelled functions on each, again until nothing moves."""
        store = self._store
        before = self._rounds_before(keys)
        if before is None:
            return
        tried: set[Words] = set(self._settings.knowledge.lists)
        fewest = max(_FEWEST, round(_STILL * len(keys)))
        for number in range(before + 1, before + 1 + _MOST_BROADCASTS):
            noted = store.noted(f"broadcast-{number}")
            if noted is None:  # decided once: a run that goes on must try the same lists
                counted = winners(store.labels[key] for key in keys)
                often = Counter({words: count for words, count in counted.items() if count >= fewest})
                noted = most_common(often, _BROADCAST_LISTS, tried)
                store.flush()
                store.note(f"broadcast-{number}", noted)
            lists = tuple(tuple(words) for words in noted)
            if not lists:
                break
            tried |= set(lists)
            waiting = [key for key in keys if store.labels[key].broadcasts < number]
            items = {key: Item(key, lists=lists, best=store.labels[key].found) for key in waiting}

            def enter(key: str, result: Searched | None, number: int = number) -> None:
                old = store.labels[key]
                found, compiles = (result.found, result.compiles) if result else (old.found, 0)
                store.add(Label(key, old.oz, found, old.compiles + compiles, number))

            self._work(f"broadcast {number}", items, BroadcastUnit(self._settings), enter, len(keys) - len(waiting))
        store.broadcast = _digest(keys)

    def _rounds_before(self, keys: Sequence[str]) -> int | None:
        """Rounds of earlier runs, that had other functions; None where it was these, and nothing is left to try."""
        store, functions = self._store, _digest(keys)
        noted = store.noted(_BROADCASTS)
        if noted is not None and noted["functions"] == functions:
            return noted["before"]
        store.forget()
        if store.broadcast == functions:
            return None
        before = max((store.labels[key].broadcasts for key in keys), default=0)
        store.note(_BROADCASTS, {"functions": functions, "before": before})
        return before

    def _learned(self, earlier: Sequence[str]) -> Knowledge:
        start = self._settings.knowledge
        return start.extended(
            start.lists, winners(self._store.labels[key] for key in earlier if key in self._store.labels)
        )

    def _work(
        self,
        what: str,
        items: dict[str, Item],
        unit: SearchUnit | BroadcastUnit,
        enter: Callable[[str, Searched | None], None],
        done: int,
    ) -> None:
        """Do a unit of work on functions; `enter` gets what each gave, or None where it was given up."""
        total, flushed = done + len(items), -math.inf  # the first at once: whoever looks sees that it works
        ordered = {key: items[key] for key in self._corpus.in_order_of_shards(items)}
        for key, outcome in outcomes(ordered, self._corpus.bitcode, unit, self._runner.run):
            searched = isinstance(outcome, Searched)
            enter(key, outcome if searched else None)
            if not searched:
                self.failed[key] = f"{outcome.status}: {outcome.message}"
            done += 1
            self._progress(what, done, total)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                self._store.flush()
                flushed = time.monotonic()
        self._store.flush()
