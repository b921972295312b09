"""What trials are worth: the gain over -Oz, the share of the autotuner's, and how well a model knows what it does.

The functions of all rows of a table are the same. A function that a method could not take counts as -Oz.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from secondpass.evaluate.cases import Case, Trials, Tried


@dataclass(frozen=True, slots=True)
class Score:
    """What a way of choosing lists is worth over many functions.

    Attributes:
        name: of the way.
        answers: of a model, a function, on average; 0 for lists that no model wrote.
        compiles: distinct lists tried a function, on average, those included that led to what counts.
        improved: share of the functions with fewer instructions than at -Oz.
        gain: share by which all functions together are smaller than at -Oz.
        mean_gain: mean of each function's own gain.
        of_autotuner: `gain` as a share of the autotuner's.
        finished: `of_autotuner` of what the lists are when finished (`tuner.finish`); None where that was not tried.
        gain_alone, mean_gain_alone, of_autotuner_alone: as they are without -Oz as back-up; NaN where -Oz is always
            among what is tried.
    """

    name: str
    answers: float
    compiles: float
    improved: float
    gain: float
    mean_gain: float
    of_autotuner: float
    finished: float | None
    gain_alone: float
    mean_gain_alone: float
    of_autotuner_alone: float

    def cells(self) -> list[str]:
        """Its numbers for people, in the order of a table's columns."""
        answers = f"{self.answers:,.1f}" if self.answers else ""
        return [
            answers, f"{self.compiles:,.1f}", f"{self.improved:.1%}", f"{self.gain:.2%}", f"{self.mean_gain:.2%}",
            _share(self.of_autotuner), _share(self.finished),
            _share(self.gain_alone, 2), _share(self.of_autotuner_alone),
        ]  # fmt: skip


def _share(value: float | None, digits: int = 1) -> str:
    """In percent; nothing where it is not known, or nothing can be gained."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}%}"


Choice = Callable[[Trials], Sequence[Tried]]
"""Which of the trials count."""


def first_answers(most: int) -> Choice:
    """The first `most` lists, those after feedback excepted."""
    return lambda trials: [it for it in trials.tried if not it.turn][:most]


def everything(trials: Trials) -> Sequence[Tried]:
    """All lists."""
    return trials.tried


def last_answer(trials: Trials) -> Sequence[Tried]:
    """The last list alone: what a model says in the end."""
    return trials.tried[-1:]


def answers(tried: Iterable[Tried]) -> int:
    """How many of some lists are answers of a model."""
    return sum(it.tokens > 0 for it in tried)


def distinct_lists(tried: Iterable[Tried]) -> int:
    """How many different lists there are among some."""
    return len({it.passes for it in tried})


def score(
    name: str,
    cases: Sequence[Case],
    trials: Mapping[str, Trials],
    choice: Choice = everything,
    *,
    spent: Choice | None = None,
    finished: Mapping[str, Trials] | None = None,
) -> Score:
    """The worth of what was tried.

    Args:
        name: of the row.
        cases: the functions.
        trials: of each, by key.
        choice: which of them count.
        spent: which it took to get there; None for the same.
        finished: the trials that count, finished.
    """
    chosen = {case.key: choice(trials[case.key]) for case in cases}
    paid = [(spent or choice)(trials[case.key]) for case in cases]
    alone = [_alone(case, chosen[case.key]) for case in cases]
    backed = [min(case.oz, count) for case, count in zip(cases, alone)]
    gain, mean_gain, of_autotuner = _gains(cases, backed)
    gain_alone, mean_gain_alone, of_autotuner_alone = _gains(cases, alone)
    return Score(
        name,
        sum(map(answers, paid)) / len(cases),
        sum(map(distinct_lists, paid)) / len(cases),
        sum(count < case.oz for case, count in zip(cases, alone)) / len(cases),
        gain,
        mean_gain,
        of_autotuner,
        score(name, cases, finished).of_autotuner if finished is not None else None,
        gain_alone,
        mean_gain_alone,
        of_autotuner_alone,
    )


def autotuner(cases: Sequence[Case], compiles: float) -> Score:
    """The autotuner's own row."""
    best = [case.best for case in cases]
    improved = sum(case.best < case.oz for case in cases) / len(cases)
    gains = _gains(cases, best)
    return Score("autotuner", 0.0, compiles, improved, *gains, None, *[math.nan] * 3)


def _alone(case: Case, tried: Iterable[Tried]) -> int:
    """The best count of some lists; -Oz's where there is none, the unoptimised one where none can be used."""
    tried = list(tried)
    if not tried:
        return case.oz
    return min((it.count for it in tried if it.count is not None), default=case.source)


def _gains(cases: Sequence[Case], counts: Sequence[int]) -> tuple[float, float, float]:
    oz = sum(case.oz for case in cases)
    saved = oz - sum(counts)
    possible = oz - sum(case.best for case in cases)
    mean = sum((case.oz - count) / case.oz for case, count in zip(cases, counts)) / len(cases)
    return saved / oz, mean, saved / possible if possible else float("nan")


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model's first answers say what they do. Shares of the functions it could read whole.

    Attributes:
        functions: that number.
        too_long: functions it could not.
        valid: lists that compile.
        source_right, target_right: counts that are exactly right.
        exact: lists that are the autotuner's.
        as_good: lists that reach the autotuner's count.
        code_parses: of the answers with code; None where none has.
        bleu: mean over those; None where none has.
    """

    functions: int
    too_long: int
    valid: float
    source_right: float
    target_right: float
    exact: float
    as_good: float
    code_parses: float | None
    bleu: float | None


def quality(cases: Sequence[Case], trials: Mapping[str, Trials]) -> Quality:
    """How well the first answers say what they do."""
    found = ((case, trials[case.key]) for case in cases)
    pairs = [(case, it.tried[0]) for case, it in found if it.tried and not it.abridged]
    count = max(1, len(pairs))
    coded = [tried for _, tried in pairs if tried.code_parses is not None]
    measured = [tried.bleu for tried in coded if tried.bleu is not None]
    return Quality(
        len(pairs),
        len(cases) - len(pairs),
        sum(tried.count is not None for _, tried in pairs) / count,
        sum(tried.source == case.source for case, tried in pairs) / count,
        sum(tried.target is not None and tried.target == tried.count for _, tried in pairs) / count,
        sum(tried.passes == case.passes for case, tried in pairs) / count,
        sum(tried.count is not None and tried.count <= case.best for case, tried in pairs) / count,
        sum(bool(tried.code_parses) for tried in coded) / len(coded) if coded else None,
        sum(measured) / len(measured) if measured else None,
    )
