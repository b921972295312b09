"""Is an answer worth more after feedback than without? Ways to spend the same number of answers, against sampling.

    python benchmarks/feedback.py build/corpus data/labels-instructions.parquet --limit 700 --out build/feedback-ways
    python benchmarks/feedback.py build/corpus data/labels-instructions.parquet --ways samples hot-after-greedy \
        --answers 10 20 50 --limit 1000 --out build/feedback-ways

All ways ask the same model for the same number of answers a function, -Oz as back-up, at a warm or a hot temperature:

    samples                warm samples, which all others are compared with
    hot                    hot samples
    after-greedy           a greedy answer, then warm samples after the feedback on it
    hot-after-greedy       the same with hot samples
    after-best             half the answers warm samples, the others warm ones after the feedback on the best of them
    hot-after-best         the same with hot samples after the feedback
    probable               the most probable answers
    probable-after-greedy  a greedy answer, then the most probable ones after the feedback on it
    probable-after-best    a third of the answers the most probable ones, then the most probable ones after the feedback
                           on the best of them
    hot-after-probable     the four most probable answers, then hot samples after the feedback on each of them in turn

and mixtures of what was asked for. Prints for each number of answers how many different lists they are in the mean, the
share of the labels' gain, of all functions together and in the mean of the functions, and two 95 % intervals of the
first one's difference from warm samples: functions drawn again, with replacement, and whole projects. Answers are kept
in OUT: a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus
from secondpass.engines.base import Completion
from secondpass.errors import PromptTooLong, run_script
from secondpass.evaluate.cache import Cache
from secondpass.evaluate.cases import Case, Tried, read_cases
from secondpass.evaluate.curves import by_answers
from secondpass.evaluate.figures import curve_plots, save
from secondpass.evaluate.models import Model
from secondpass.model.manifest import SHIPPED, Manifest
from secondpass.progress import progress_bar
from secondpass.prompt import Form, Objective
from secondpass.strategies.base import HOTTEST, Attempt, Session, Strategy
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.tree import Priority, PriorityAfterFeedback, in_order
from secondpass.tuner.labels import read_labels

DRAWS = 2_000
SAMPLES = "samples"


@dataclass(frozen=True, slots=True)
class AfterTheBest:
    """Samples, then others after the feedback on the best of them."""

    first: int
    after: int
    temperature: float
    temperature_after: float
    seed: int = 0

    def run(self, session: Session) -> None:
        session.judge(session.answer(self.first, self.temperature, self.seed), range(self.first))
        best = best_of(session.attempts)
        if best is None:
            return
        with suppress(PromptTooLong):
            sequence = session.after(best, Form.FAST)
            seconds = session.answer(self.after, self.temperature_after, self.seed + 1, sequence=sequence)
            session.judge(seconds, [best.sample] * self.after, 1)


@dataclass(frozen=True, slots=True)
class ProbableAfterTheBest:
    """The most probable answers, then the most probable ones after the feedback on the best of them."""

    first: int
    after: int

    def run(self, session: Session) -> None:
        session.work(Priority(self.first))
        best = best_of(session.attempts)
        if best is None:
            return
        with suppress(PromptTooLong):
            sequence = session.branching(session.after(best, Form.FAST))
            for path in islice(in_order(sequence.tree().trying_again(), self.after), self.after):
                session.count(1)
                session.judge([sequence.completion(path.written)], [best.sample], 1)


@dataclass(frozen=True, slots=True)
class AfterTheProbable:
    """The most probable answers, then samples after the feedback on each of them in turn."""

    n: int
    temperature: float
    first: int = 4

    def run(self, session: Session) -> None:
        session.work(Priority(min(self.first, self.n)))
        followed: list[tuple[int, list[Completion]]] = []
        each = -(-(self.n - self.first) // len(session.attempts))
        for it in session.attempts if each > 0 else ():
            with suppress(PromptTooLong):
                sequence = session.after(it, Form.FAST)
                followed.append((it.sample, sequence.answer(each, self.temperature, it.sample)))
        for turn in range(each):
            for sample, completions in followed:
                session.count(session.affordable(1))
                session.judge([completions[turn]], [sample], 1)


def best_of(attempts: Sequence[Attempt]) -> Attempt | None:
    """The first of the attempts with the least instructions; None where none can be used."""
    usable = [it for it in attempts if it.verdict.target is not None]
    return min(usable, key=lambda it: it.verdict.target or 0, default=None)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to spend answers.

    Attributes:
        strategy: that spends so many.
        anytime: whether its first answers are those it gives when it may spend no more.
    """

    strategy: Callable[[int], Strategy]
    anytime: bool = True


def ways(warm: float, hot: float) -> dict[str, Way]:
    """All ways, at these temperatures."""

    def after_greedy(temperature: float) -> Way:
        return Way(lambda n: Sample(n, temperature, 0, Then.SAMPLED, Form.FAST))

    def after_best(temperature: float) -> Way:
        return Way(lambda n: AfterTheBest(half(n), n - half(n), warm, temperature), anytime=False)

    return {
        SAMPLES: Way(lambda n: Sample(n, warm)),
        "hot": Way(lambda n: Sample(n, hot)),
        "after-greedy": after_greedy(warm),
        "hot-after-greedy": after_greedy(hot),
        "after-best": after_best(warm),
        "hot-after-best": after_best(hot),
        "probable": Way(Priority),
        "probable-after-greedy": Way(PriorityAfterFeedback),
        "probable-after-best": Way(lambda n: ProbableAfterTheBest(few(n), n - few(n)), anytime=False),
        "hot-after-probable": Way(lambda n: AfterTheProbable(n, hot)),
    }


def half(n: int) -> int:
    """Half the answers, or one more."""
    return n - n // 2


def few(n: int) -> int:
    """A third of the answers, or nearly."""
    return max(1, round(0.3 * n))


GREEDY_FIRST = ("after-greedy", "hot-after-greedy", "probable", "probable-after-greedy", "hot-after-probable")
"""Ways whose first answer is the greedy one."""
SAMPLED = (SAMPLES, "hot")
"""Ways that draw with the same random numbers, answer by answer, at another temperature."""
MIXTURES: dict[str, tuple[str, Callable[[int], int], str]] = {
    "a greedy answer, then samples": ("after-greedy", lambda n: 1, SAMPLES),
    "half after-greedy, half samples": ("after-greedy", half, SAMPLES),
    "half hot, half samples": ("hot", half, SAMPLES),
    "half hot-after-greedy, half samples": ("hot-after-greedy", half, SAMPLES),
    "half probable, half samples": ("probable", half, SAMPLES),
    "half hot-after-probable, half samples": ("hot-after-probable", half, SAMPLES),
    "half probable-after-greedy, half samples": ("probable-after-greedy", half, SAMPLES),
    "half probable-after-greedy, half hot-after-greedy": ("probable-after-greedy", half, "hot-after-greedy"),
    "half probable, half hot-after-greedy": ("probable", half, "hot-after-greedy"),
}
"""The first answers of one anytime way, this many of `n`, then the first of another one that are news after these."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="one that was trained on Fast Feedback")
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--limit", type=int, default=None, help="only the first functions by hash")
    parser.add_argument("--after", type=int, default=0, help="and of these not the first so many")
    parser.add_argument("--ways", nargs="+", choices=list(ways(1, 1)), default=list(ways(1, 1)))
    parser.add_argument("--answers", type=int, nargs="+", default=[10])
    parser.add_argument("--warm", type=float, help="the warm temperature (default: the model's)")
    parser.add_argument("--hot", type=float, default=1.6, help=f"the hot temperature, up to {HOTTEST:g}")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="write feedback.png and .svg there")
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    labels = read_labels(options.labels, Objective.INSTRUCTIONS, corpus)
    cases = read_cases(corpus, labels, options.split, options.limit)[options.after :]
    warm = options.warm or Manifest.read(options.model).temperature
    asked = {name: way for name, way in ways(warm, options.hot).items() if name in {SAMPLES, *options.ways}}
    most = max(options.answers)
    models = {
        (name, n): Model(options.model, way.strategy(n), name, workers=options.workers)
        for name, way in asked.items()
        for n in ([most] if way.anytime else options.answers)
    }
    with Cache(options.out) as cache, progress_bar() as progress:
        cache.ask("the model", list(models.values()), cases, progress)
        found = {key: cache.tried(model, cases) for key, model in models.items()}
    print(f"{len(cases)} functions of the split '{options.split}', warm is {warm:g}, hot {options.hot:g}")
    if options.plot:
        anytime = [name for name, way in asked.items() if way.anytime]
        curves = [by_answers(name, cases, found[name, most], range(1, most + 1)) for name in anytime]
        title = f"{len(cases):,} functions of the split '{options.split}'"
        save(curve_plots({title: curves}, "answers a function"), options.plot, "feedback")
    for n in options.answers:
        tried: dict[str, list[Sequence[Tried]]] = {
            name: [found[name, most if way.anytime else n][case.key].tried[:n] for case in cases]
            for name, way in asked.items()
        }
        for title, (one, share, other) in MIXTURES.items():
            if {one, other} <= asked.keys():
                first = share(n)
                skipped = first if {one, other} <= {*SAMPLED} else int({one, other} <= {*GREEDY_FIRST})
                both = zip(tried[one], [found[other, most][case.key].tried for case in cases], strict=True)
                tried[title] = [[*a[:first], *b[skipped : skipped + n - first]] for a, b in both]
        print_table(n, cases, tried)
    return 0


def print_table(n: int, cases: Sequence[Case], found: Mapping[str, Sequence[Sequence[Tried]]]) -> None:
    titles = (
        "different lists",
        "of the labels' gain",
        "in the mean",
        "against samples",
        "by projects",
        "better",
        "worse",
    )
    print(f"\n| {n} answers | {' | '.join(titles)} |\n|---|{'---:|' * len(titles)}")
    projects = np.unique([case.project for case in cases], return_inverse=True)[1]
    oz, label = (np.array([getattr(case, name) for case in cases]) for name in ("oz", "best"))
    plain = smallest(cases, found[SAMPLES])
    for title, tried in found.items():
        left = smallest(cases, tried)
        lists = np.mean([len({it.passes for it in some}) for some in tried])
        share = (oz - left).sum() / (oz - label).sum()
        mean = (1 - left / oz).mean() / (1 - label / oz).mean()
        compared = "| | |"
        if title != SAMPLES:
            more = plain - left
            both = (interval(more, oz - label, groups) for groups in (np.arange(len(cases)), projects))
            intervals = " | ".join(f"{low:+.1%} to {high:+.1%}" for low, high in both)
            compared = f"{intervals} | {(more > 0).sum()} | {(more < 0).sum()}"
        print(f"| {title} | {lists:.1f} | {share:.1%} | {mean:.1%} | {compared} |")


def smallest(cases: Sequence[Case], tried: Sequence[Sequence[Tried]]) -> NDArray[np.int64]:
    """What the best of each function's answers leaves of it, -Oz at most."""
    usable = ([it.count for it in some if it.count is not None] for some in tried)
    return np.array([min([case.oz, *counts]) for case, counts in zip(cases, usable, strict=True)])


def interval(more: NDArray[np.int64], possible: NDArray[np.int64], groups: NDArray[np.int64]) -> tuple[float, float]:
    """The middle 95 % of what is saved more, as a share of all that may be, over groups drawn with replacement.

    Args:
        more: what is saved more, by function.
        possible: what may be saved.
        groups: the number of each function's group: its own, or its project's, whose functions resemble each other.
    """
    more, possible = (np.bincount(groups, weights=it) for it in (more, possible))
    drawn = np.random.default_rng(0).integers(0, len(more), (DRAWS, len(more)))
    all_more, all_possible = more[drawn].sum(axis=1), possible[drawn].sum(axis=1)
    told = all_possible > 0  # of few functions none may have anything to gain
    low, high = np.quantile(all_more[told] / all_possible[told], [0.025, 0.975]) if told.any() else (0.0, 0.0)
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(run_script(main))
