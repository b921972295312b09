"""The numbers behind the paper's figures 3, 4 and 5.

What a first answer's features say about its worth, and which model answers better on which functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secondpass.evaluate.cases import Case, Trials, Tried
from secondpass.evaluate.tables import Choice, Score, first_answers, last_answer, score

# Figure 3: correlations


@dataclass(frozen=True, slots=True)
class Correlations:
    """Pearson's correlation of what is known at inference time, and of the improvement.

    Attributes:
        names: of the quantities.
        matrix: (names, names); nan where a quantity never differs.
        functions: how many first answers.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.float64]
    functions: int


IMPROVEMENT = "improvement over the autotuner"


def correlations(cases: Sequence[Case], trials: Mapping[str, Trials]) -> Correlations:
    """Of the first answers that compile, to functions read whole; BLEU only where the model writes code."""
    pairs = [(case, trials[case.key]) for case in cases if _is_answered(trials[case.key])]
    pairs = [(case, it) for case, it in pairs if it.tried[0].count is not None]
    columns: dict[str, list[float]] = {}
    for case, it in pairs:
        for name, value in _features(case, it.tried[0], it.prompt_tokens).items():
            columns.setdefault(name, []).append(value)
    complete = {name: values for name, values in columns.items() if len(values) == len(pairs)}
    table = np.array(list(complete.values()), dtype=np.float64).reshape(len(complete), len(pairs))
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(table) if len(pairs) > 1 else np.full((len(complete),) * 2, np.nan)
    return Correlations(tuple(complete), np.atleast_2d(matrix), len(pairs))


def _features(case: Case, answer: Tried, prompt_tokens: int) -> dict[str, float]:
    count, source, target = answer.count or 0, answer.source or 0, answer.target or 0
    features = {
        "source count, foreseen": source,
        "source count, true": case.source,
        "error of the source count": abs(source - case.source),
        "target count, foreseen": target,
        "target count, true": count,
        "error of the target count": abs(target - count),
        "passes": len(answer.passes),
        "tokens of the prompt": prompt_tokens,
        "tokens of the answer": answer.tokens,
        "log probability": answer.log_probability,
    }
    if answer.bleu is not None:
        features["BLEU"] = answer.bleu
    return {**features, IMPROVEMENT: (case.best - count) / case.oz}


# Figure 4: distributions by performance


@dataclass(frozen=True, slots=True)
class Distributions:
    """Errors and BLEU of first answers, apart by how the answer does against the autotuner.

    Attributes:
        names: worse, as good, better.
        source_errors, target_errors: relative errors of the counts, by name.
        bleu: by name; empty where the model writes no code.
    """

    names: tuple[str, ...]
    source_errors: tuple[tuple[float, ...], ...]
    target_errors: tuple[tuple[float, ...], ...]
    bleu: tuple[tuple[float, ...], ...]


WORSE, SAME, BETTER = "worse than the autotuner", "as good", "better"


def distributions(cases: Sequence[Case], trials: Mapping[str, Trials]) -> Distributions:
    """Of the first answers that compile, to functions read whole."""
    groups: dict[str, list[tuple[Case, Tried]]] = {WORSE: [], SAME: [], BETTER: []}
    for case in cases:
        tried = trials[case.key].tried
        if _is_answered(trials[case.key]) and tried[0].count is not None:
            difference = tried[0].count - case.best
            groups[WORSE if difference > 0 else BETTER if difference < 0 else SAME].append((case, tried[0]))
    rows = list(groups.values())
    return Distributions(
        tuple(groups),
        tuple(tuple(abs((it.source or 0) - case.source) / case.source for case, it in row) for row in rows),
        tuple(tuple(abs((it.target or 0) - (it.count or 0)) / max(1, it.count or 0) for _, it in row) for row in rows),
        tuple(tuple(it.bleu for _, it in row if it.bleu is not None) for row in rows),
    )


# Figure 5: tasks by model and kind of function


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models' first and second answers on one kind of function.

    Attributes:
        name: of the kind.
        functions: how many.
        rows: a score for each model and task.
    """

    name: str
    functions: int
    rows: tuple[Score, ...]


def comparisons(
    cases: Sequence[Case], first: Mapping[str, Trials], models: Mapping[str, Mapping[str, Trials]]
) -> list[Comparison]:
    """The paper's four kinds of functions; which a function is, its first model's answer says.

    Args:
        cases: the functions.
        first: the first model's greedy answers.
        models: greedy answers and those after feedback of every model, by name; the first model's among them.
    """
    kinds: dict[str, Callable[[Case], bool]] = {
        "all functions": lambda case: True,
        "the autotuner's list is not -Oz": lambda case: case.best < case.oz,
        "the first answer is worse than the autotuner": lambda case: _is_worse(case, first[case.key]),
        "the first answer foresaw a wrong count": lambda case: _is_wrong(first[case.key]),
    }
    found: list[Comparison] = []
    for name, holds in kinds.items():
        chosen = [case for case in cases if holds(case)]
        if chosen:
            found.append(Comparison(name, len(chosen), tuple(_rows(chosen, models))))
    return found


def _rows(cases: Sequence[Case], models: Mapping[str, Mapping[str, Trials]]) -> list[Score]:
    tasks: dict[str, Choice] = {"Task Optimize": first_answers(1), "Task Feedback": last_answer}
    rows: list[Score] = []
    for model, trials in models.items():
        answered = any(it.turn for case in cases for it in trials[case.key].tried)
        for task, choice in tasks.items():
            if task == "Task Optimize" or answered:
                rows.append(score(f"{model}, {task}", cases, trials, choice))
    return rows


def _is_worse(case: Case, trials: Trials) -> bool:
    return bool(trials.tried) and (trials.tried[0].count is None or trials.tried[0].count > case.best)


def _is_wrong(trials: Trials) -> bool:
    return _is_answered(trials) and trials.tried[0].target != trials.tried[0].count


def _is_answered(trials: Trials) -> bool:
    """Whether there is an answer whose counts mean something: those to a function read in part do not."""
    return bool(trials.tried) and not trials.abridged
