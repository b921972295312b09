"""Is an answer worth more after feedback than without? Ways to spend the same number of answers, against sampling.

    python benchmarks/feedback.py build/corpus data/labels-instructions.parquet --limit 700 --out build/feedback-ways

All ways ask the same model for the same number of answers a function, at its temperature, -Oz as back-up: samples; a
greedy answer, then samples after the feedback on it; those two in turn; half the samples, then as many after the
feedback on the best of them; the most probable answers; fewer of these, then the most probable ones after the feedback
on the best of them. Prints the share of the labels' gain, of all functions together and in the mean of the
functions, and the 95 % interval of the first one's difference from sampling (functions drawn again, with replacement).
Answers are kept in OUT: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus
from secondpass.errors import PromptTooLong, run_script
from secondpass.evaluate.cache import Cache
from secondpass.evaluate.cases import Case, Trials, Tried, read_cases
from secondpass.evaluate.models import Model
from secondpass.model.manifest import SHIPPED, Manifest
from secondpass.prompt import Form, Objective
from secondpass.strategies.base import Session
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.tree import Priority, in_order
from secondpass.tuner.labels import read_labels

DRAWS = 2_000
SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class AfterTheBest:
    """Samples, then others after the feedback on the best of them."""

    first: int
    after: int
    temperature: float
    seed: int = 0

    def run(self, session: Session) -> None:
        session.judge(session.answer(self.first, self.temperature, self.seed), range(self.first))
        usable = [(it.verdict.target, it.sample) for it in session.attempts if it.verdict.target is not None]
        if not usable:
            return
        best = session.attempts[min(usable)[1]]
        with suppress(PromptTooLong):
            sequence = session.prompt.extend(best.completion, best.verdict.feedback(Form.FAST))
            seconds = session.answer(self.after, self.temperature, self.seed + 1, sequence=sequence)
            session.judge(seconds, [best.sample] * self.after, 1)


@dataclass(frozen=True, slots=True)
class ProbableAfterTheBest:
    """The most probable answers, then the most probable ones after the feedback on the best of them."""

    first: int
    after: int

    def run(self, session: Session) -> None:
        session.work(Priority(self.first))
        usable = [(it.verdict.target, it.sample) for it in session.attempts if it.verdict.target is not None]
        if not usable:
            return
        best = session.attempts[min(usable)[1]]
        with suppress(PromptTooLong):
            sequence = session.prompt.extend(best.completion, best.verdict.feedback(Form.FAST))
            for path in islice(in_order(sequence.tree(), self.after), self.after):
                session.count(1)
                session.judge([sequence.completion(path.written)], [best.sample], 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="one that was trained on Fast Feedback")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--limit", type=int, default=None, help="only the first functions by hash")
    parser.add_argument("--answers", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    labels = read_labels(options.labels, Objective.INSTRUCTIONS)
    cases = read_cases(Corpus(options.corpus), labels, options.split, options.limit)
    manifest, n = Manifest.read(options.model), options.answers
    warm, half, few = manifest.temperature, n // 2, max(1, round(0.3 * n))
    ways = {
        SAMPLES: Sample(n, warm),
        "a greedy answer, then samples after its feedback": Sample(n, warm, 0, Then.SAMPLED, Form.FAST),
        f"{n - half} samples, then {half} after the best one's feedback": AfterTheBest(n - half, half, warm),
        f"the {n} most probable": Priority(n),
        f"the {few} most probable, then the {n - few} after the best one's feedback": ProbableAfterTheBest(
            few, n - few
        ),
    }
    with Cache(options.out) as cache:
        found = {
            name: cache.tried(Model(options.model, way, f"way {number}", workers=options.workers), cases, None)
            for number, (name, way) in enumerate(ways.items())
        }
    rows = {name: smallest(cases, trials, n) for name, trials in found.items()}
    plain, after, *_ = found.values()
    mixed = f"a greedy answer, {n - 1 - half} samples after its feedback and {half} without"
    rows[mixed] = np.minimum(smallest(cases, after, n - half), smallest(cases, plain, half))
    print(f"{len(cases)} functions of the split '{options.split}', {n} answers at temperature {warm:g}\n")
    print("| | of the labels' gain | in the mean | against sampling | better | worse |\n|---|---:|---:|---:|---:|---:|")
    oz, label = (np.array([getattr(case, name) for case in cases]) for name in ("oz", "best"))
    for name, left in rows.items():
        share = (oz - left).sum() / (oz - label).sum()
        mean = (1 - left / oz).mean() / (1 - label / oz).mean()
        compared = "| |"
        if name != SAMPLES:
            more = rows[SAMPLES] - left
            low, high = interval(more, oz - label)
            compared = f"{low:+.1%} to {high:+.1%} | {(more > 0).sum()} | {(more < 0).sum()}"
        print(f"| {name} | {share:.1%} | {mean:.1%} | {compared} |")
    return 0


def smallest(cases: Sequence[Case], trials: Mapping[str, Trials], n: int) -> NDArray[np.int64]:
    """What the best of each function's first n answers leaves of it, -Oz at most."""

    def usable(tried: Sequence[Tried]) -> list[int]:
        return [it.count for it in tried[:n] if it.count is not None]

    return np.array([min([case.oz, *usable(trials[case.key].tried)]) for case in cases])


def interval(more: NDArray[np.int64], possible: NDArray[np.int64]) -> tuple[float, float]:
    """The middle 95 % of what is saved more, as a share of all that may be, over functions drawn with replacement."""
    drawn = np.random.default_rng(0).integers(0, len(more), (DRAWS, len(more)))
    all_more, all_possible = more[drawn].sum(axis=1), possible[drawn].sum(axis=1)
    told = all_possible > 0  # of few functions none may have anything to gain
    low, high = np.quantile(all_more[told] / all_possible[told], [0.025, 0.975]) if told.any() else (0.0, 0.0)
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(run_script(main))
