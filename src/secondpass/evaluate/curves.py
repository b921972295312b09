"""How good the best list is after so many answers, and after so many compiles: the axes of the sampling figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from secondpass.evaluate.cases import Case, Trials, Tried

Order = Callable[[Sequence[Tried]], Sequence[Tried]]
"""The order in which attempts count."""


def as_tried(tried: Sequence[Tried]) -> Sequence[Tried]:
    """As they were made."""
    return tried


def each_with_its_feedback(tried: Sequence[Tried]) -> Sequence[Tried]:
    """Every first answer directly before what followed the feedback on it, as if they had been made in turn."""
    return sorted(tried, key=lambda it: (it.sample, it.turn))


@dataclass(frozen=True, slots=True)
class Curve:
    """The share of the autotuner's gain by effort, -Oz being a candidate always.

    Attributes:
        name: of the way to find lists.
        effort: answers or compiles a function.
        share: of the autotuner's gain over all functions together.
        gain: share by which all functions together are smaller than at -Oz.
    """

    name: str
    effort: tuple[int, ...]
    share: tuple[float, ...]
    gain: tuple[float, ...]


def by_answers(
    name: str, cases: Sequence[Case], trials: Mapping[str, Trials], marks: Sequence[int], order: Order = as_tried
) -> Curve:
    """The best after so many answers; a function with fewer keeps what it has."""
    return _curve(name, cases, marks, {case.key: _after_answers(order(trials[case.key].tried)) for case in cases})


def by_compiles(
    name: str, cases: Sequence[Case], trials: Mapping[str, Trials], marks: Sequence[int], order: Order = as_tried
) -> Curve:
    """The best after so many distinct lists; a list that came before costs nothing."""
    return _curve(name, cases, marks, {case.key: _after_compiles(order(trials[case.key].tried)) for case in cases})


def of_budgets(name: str, cases: Sequence[Case], by_budget: Mapping[int, Mapping[str, Trials]]) -> Curve:
    """The best of everything, for ways that are run anew for each budget."""
    marks = sorted(by_budget)
    ends = [[min([case.oz, *_after_answers(by_budget[mark][case.key].tried)]) for mark in marks] for case in cases]
    return _shares(name, cases, marks, ends)


def _after_answers(tried: Sequence[Tried]) -> list[int]:
    """The best count after each answer; those that cannot be used leave it as it was."""
    best: list[int] = []
    for it in tried:
        count = it.count if it.count is not None else _NOTHING
        best.append(min(count, best[-1]) if best else count)
    return best


def _after_compiles(tried: Sequence[Tried]) -> list[int]:
    seen: dict[tuple[str, ...], Tried] = {}
    for it in tried:
        seen.setdefault(it.passes, it)
    return _after_answers(list(seen.values()))


_NOTHING = 1 << 60


def _curve(name: str, cases: Sequence[Case], marks: Sequence[int], best: Mapping[str, Sequence[int]]) -> Curve:
    ends = [[min([case.oz, *best[case.key][:mark][-1:]]) for mark in marks] for case in cases]
    return _shares(name, cases, marks, ends)


def _shares(name: str, cases: Sequence[Case], marks: Sequence[int], ends: Sequence[Sequence[int]]) -> Curve:
    oz = sum(case.oz for case in cases)
    possible = oz - sum(case.best for case in cases)
    saved = [oz - sum(row[place] for row in ends) for place in range(len(marks))]
    shares = tuple(it / possible if possible else 0.0 for it in saved)
    return Curve(name, tuple(marks), shares, tuple(it / oz for it in saved))
