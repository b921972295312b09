"""In which ways a model is asked, for which part of the evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from secondpass.model.manifest import Manifest
from secondpass.strategies.base import Budget, Strategy
from secondpass.strategies.iterating import Iterate
from secondpass.strategies.portfolio import Portfolio
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.searching import Search
from secondpass.strategies.single import Feedback, Single
from secondpass.strategies.tree import Beam, Priority, PriorityAfterFeedback

GREEDY, ITERATED, ITERATED_WARM = "greedy", "iteration", "warm iteration"
PRIORITY, PRIORITY_THEN = "priority", "priority after feedback"
PORTFOLIO, WHOLE_PORTFOLIO = "portfolio", "whole portfolio"
TEN, STEPS, CORESET, COMPILES = 10, 5, 50, 400
_SEARCHED = (2, 5, 10, 20, 50, 100)
"""Budgets at which strategies are run anew: their first answers are not those of a smaller budget."""


@dataclass(frozen=True, slots=True)
class Way:
    """A strategy, and what it may spend on a function."""

    strategy: Strategy
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How one model is asked.

    Attributes:
        manifest: the model's.
        answers: a function in the sampling figures.
        temperatures: of those.
        seed: of all samples and searches.
        first: whether it is the paper's first model.
        last: whether it is the one whose feedback is sampled.
    """

    manifest: Manifest
    answers: int
    temperatures: Sequence[float]
    seed: int
    first: bool
    last: bool

    def of(self, parts: Collection[str]) -> dict[str, Way]:
        """The ways that these parts of the evaluation need, by names that are used in them."""
        return {name: way for part in parts for name, way in getattr(self, f"_{part}")()}

    def _table(self) -> Iterator[tuple[str, Way]]:
        yield self._greedy()
        yield self._samples(self.manifest.temperature)
        yield PORTFOLIO, Way(Portfolio(min(TEN, self.answers)))
        yield self._search(COMPILES)

    def _correlations(self) -> Iterator[tuple[str, Way]]:
        if self.first:
            yield self._greedy()

    _distributions = _functions = _correlations

    def _tasks(self) -> Iterator[tuple[str, Way]]:
        yield self._greedy()

    def _sampling(self) -> Iterator[tuple[str, Way]]:
        for temperature in self.temperatures:
            if self.first or self.last:
                yield self._samples(temperature)
            if self.last and self.manifest.takes_feedback:
                yield self._samples(temperature, Then.GREEDY)
                yield self._samples(temperature, Then.SAMPLED)

    def _iteration(self) -> Iterator[tuple[str, Way]]:
        manifest, form = self.manifest, self.manifest.feedback_form
        if manifest.takes_feedback:
            again = Iterate(STEPS, manifest.temperature, self.seed, form, self.answers)
            yield ITERATED, Way(Iterate(STEPS, form=form))
            yield ITERATED_WARM, Way(again, Budget(self.answers))
            yield self._samples(manifest.temperature)

    def _compiles(self) -> Iterator[tuple[str, Way]]:
        yield self._samples(self.manifest.temperature)
        if self.manifest.takes_feedback:
            yield self._samples(self.manifest.temperature, Then.GREEDY)
            yield PRIORITY_THEN, Way(PriorityAfterFeedback(self.answers, self.manifest.feedback_form))
        yield PRIORITY, Way(Priority(self.answers))
        yield WHOLE_PORTFOLIO, Way(Portfolio(min(self.answers, CORESET)))
        for budget in budgets(self.answers):
            yield beam(budget), Way(Beam(budget))
            yield self._search(budget)

    def _greedy(self) -> tuple[str, Way]:
        """The greedy answer and, from models that know feedback, what follows it."""
        manifest = self.manifest
        strategy = Feedback(manifest.feedback_form) if manifest.takes_feedback else Single(manifest.writes_code)
        return GREEDY, Way(strategy)

    def _search(self, compiles: int) -> tuple[str, Way]:
        return search(compiles), Way(Search(compiles, min(TEN, compiles, self.answers), self.seed))

    def _samples(self, temperature: float, then: Then = Then.NOTHING) -> tuple[str, Way]:
        strategy = Sample(self.answers, temperature, self.seed, then, self.manifest.feedback_form)
        return samples(temperature, then), Way(strategy)


def budgets(most: int) -> list[int]:
    """Numbers of lists at which beams and searches are run, up to a number."""
    return [it for it in _SEARCHED if it <= most]


def samples(temperature: float, then: Then = Then.NOTHING) -> str:
    """The name of a way to sample."""
    return f"samples at {temperature:g}, then {then}"


def beam(width: int) -> str:
    """The name of a beam search."""
    return f"beam {width}"


def search(compiles: int) -> str:
    """The name of a search from the model's answers."""
    return f"search {compiles}"
