"""The paper's whole evaluation, and past it: every table and figure over one set of held-out functions.

What each method tried is kept in OUT/answers; the report is made anew from that in seconds. Parts:

    table         models, coreset, similar functions, random lists at equal compiles; what models know of their answers
    correlations  what is known at inference time against the improvement (the paper's figure 3)
    distributions errors of counts and BLEU by performance (figure 4)
    tasks         Task Optimize and Task Feedback by kind of function (figure 5)
    sampling      four ways to sample by number of answers and temperature (figure 6)
    iteration     feedback again and again against sampling (figure 7)
    compiles      all strategies and what needs no model on one axis
    functions     the functions with the largest gain and loss, before and after
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from secondpass import __version__, parquet
from secondpass.corpus.store import Corpus, Split
from secondpass.errors import InputError
from secondpass.evaluate import figures, paper, ways
from secondpass.evaluate.cache import Cache
from secondpass.evaluate.cases import Case, Trials, read_cases
from secondpass.evaluate.curves import Curve, by_answers, by_compiles, each_with_its_feedback, of_budgets
from secondpass.evaluate.examples import examples
from secondpass.evaluate.methods import Finished, FixedLists, Method, RandomLists, SimilarFunctions
from secondpass.evaluate.models import Model
from secondpass.evaluate.tables import (
    Choice,
    Quality,
    Score,
    answers,
    autotuner,
    distinct_lists,
    everything,
    first_answers,
    last_answer,
    quality,
    score,
)
from secondpass.files import write_json
from secondpass.llvm.library import load
from secondpass.model.manifest import SHIPPED, Manifest
from secondpass.page import Page
from secondpass.progress import Progress
from secondpass.prompt import Objective
from secondpass.strategies.base import HOTTEST, MOST_ANSWERS
from secondpass.strategies.sampling import Then
from secondpass.tuner.labels import read_labels

PARTS = ("table", "correlations", "distributions", "tasks", "sampling", "iteration", "compiles", "functions")
PAGE, RESULTS, NUMBERS, FIGURES, ANSWERS = "report.html", "results.json", "numbers.parquet", "figures", "answers"
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
_MARKS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100, 140, 200, 300, 500, 700, 1000)
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of `secondpass evaluate`, as the command line has them."""

    corpus: Path
    labels: Path
    out: Path
    models: tuple[tuple[str, Path], ...]
    """Names and directories; the first is the paper's first model."""
    split: Split = "test"
    limit: int | None = None
    answers: int = 100
    """Answers a function in the sampling figures."""
    temperatures: tuple[float, ...] = TEMPERATURES
    seed: int = 0
    workers: int = 0
    parts: tuple[str, ...] = PARTS


@dataclass(slots=True)
class Evaluation:
    """What was found.

    Attributes:
        models: their names.
        functions: how many.
        scores: the rows of the table, where it is a part.
        qualities: `tables.Quality` of each model's first answers, likewise.
        results: everything, as JSON knows it.
        out: where it lies.
    """

    models: tuple[str, ...]
    functions: int
    scores: tuple[Score, ...]
    qualities: dict[str, Quality]
    results: dict[str, Any] = field(repr=False)
    out: Path


def evaluate(request: Request, progress: Progress | None = None) -> Evaluation:
    """Measure, and write the report.

    Raises:
        InputError: an option makes no sense, or the folder is in use.
        CorpusError: corpus or labels cannot be read, or no function of the split is labelled.
        ModelError: a model cannot be read.
        EngineStopped: a model's process died, or raised an error; what was measured until then is kept.
    """
    _check(request)
    figures.pyplot()
    with Cache(request.out / ANSWERS) as cache:
        run = _Run(request, cache, progress)
        run.ask()
        for part in PARTS:
            if part in request.parts:
                getattr(run, f"add_{part}")()
        run.write()
        names = tuple(name for name, _ in request.models)
        return Evaluation(names, len(run.cases), tuple(run.scores), run.qualities, run.results, request.out)


def named(models: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Models as `NAME=DIR` or `DIR`, by the name in the directory then; the one in the box where there is none."""
    found: list[tuple[str, Path]] = []
    for word in models or [str(SHIPPED)]:
        name, equals, directory = word.partition("=")
        if not equals or Path(word).exists():
            found.append((Manifest.read(Path(word)).name, Path(word)))
        else:
            found.append((name, Path(directory)))
    return tuple(found)


def _check(request: Request) -> None:
    names = [name for name, _ in request.models]
    if len(set(names)) < len(names):
        raise InputError(f"--models: two models are called '{max(names, key=names.count)}'; name them NAME=DIR")
    if not 1 <= request.answers <= MOST_ANSWERS:
        raise InputError(f"--answers {request.answers}: ask for 1 to {MOST_ANSWERS}")
    if (request.limit is not None and request.limit < 1) or request.workers < 0:
        raise InputError("--limit must be positive, --workers not negative")
    if request.seed < 0:
        raise InputError(f"--seed {request.seed}: give a number that is not negative")
    if not request.temperatures or not all(0 < it <= HOTTEST for it in request.temperatures):
        raise InputError(f"--temperatures must all be above 0, up to {HOTTEST:g}")
    if unknown := set(request.parts) - set(PARTS):
        raise InputError(f"--parts: there is no '{min(unknown)}'; there are {', '.join(PARTS)}")


class _Run:
    """One evaluation: methods are run when a part first needs them."""

    def __init__(self, request: Request, cache: Cache, progress: Progress | None) -> None:
        self._request, self._cache, self._progress = request, cache, progress
        self._manifests = {name: Manifest.read(directory) for name, directory in request.models}
        self._corpus = Corpus(request.corpus)
        self._labels = read_labels(request.labels, Objective.INSTRUCTIONS, self._corpus)
        self.cases: Sequence[Case] = read_cases(self._corpus, self._labels, request.split, request.limit)
        self._workers = request.workers or len(os.sched_getaffinity(0))
        self._marks = sorted({*(mark for mark in _MARKS if mark <= request.answers), request.answers})
        self._page = Page(f"secondpass on {len(self.cases):,} functions of the split '{request.split}'")
        self._measured: dict[str, tuple[Method, Mapping[str, Trials]]] = {}
        self.scores: list[Score] = []
        self.qualities: dict[str, Quality] = {}
        self.results: dict[str, Any] = {
            "llvm": load().version,
            "split": request.split,
            "functions": len(self.cases),
            "models": [name for name, _ in request.models],
            "seed": request.seed,
            "answers": request.answers,
            "temperatures": list(request.temperatures),
            "secondpass": __version__,
        }
        self._page.text(
            f"Instructions of each function alone, LLVM {load().version}, seed {request.seed}. "
            "Of a function too long for a model it reads the beginning and the end. "
            "The autotuner is secondpass tune; shares are of its gain."
        )

    # Methods

    def _tried(self, name: str, method: Method) -> Mapping[str, Trials]:
        found = self._cache.tried(method, self.cases, self._progress)
        self._measured[name] = method, found
        return found

    def _asked(self, model: str, name: str) -> Mapping[str, Trials]:
        """What a model was asked in one of the ways of `_ways`."""
        return self._tried(f"{model}: {name}", self._ways[model][name])

    def ask(self) -> None:
        """Ask every model in all the ways that the parts need: together, since most of the time is reading."""
        for model, asked in self._ways.items():
            self._cache.ask(f"{model}: {len(asked)} strategies", list(asked.values()), self.cases, self._progress)

    @cached_property
    def _ways(self) -> Mapping[str, Mapping[str, Model]]:
        """By model and name, all ways in which the parts need models to be asked."""
        request = self._request
        found: dict[str, dict[str, Model]] = {}
        for model, directory in request.models:
            asked = ways.Ways(
                manifest=self._manifests[model],
                answers=request.answers,
                temperatures=request.temperatures,
                seed=request.seed,
                first=model == self._first,
                last=model == self._last,
            )
            found[model] = {
                name: Model(directory, it.strategy, f"{model}-{name}", it.budget, self._workers)
                for name, it in asked.of(request.parts).items()
            }
        return found

    def _row(self, name: str, tried: Mapping[str, Trials], choice: Choice, chosen: str) -> Score:
        """A row of the table: some of the lists that a method tried, as they are and finished.

        Args:
            name: of the row.
            tried: what `_tried` gave for the method.
            choice: which of its lists.
            chosen: what to call them.
        """
        method = next(it for it, found in self._measured.values() if found is tried)
        last = Finished(method, tried, choice, chosen, self._workers)
        return score(name, self.cases, tried, choice, finished=self._tried(last.name, last))

    def _searched(self, model: str, ten: int) -> Score:
        """The row of a search, which keeps its best lists alone, and says itself what it took."""
        found = self._asked(model, ways.search(ways.COMPILES))
        spent = [found[case.key] for case in self.cases]
        asked, compiled = (sum(getattr(it, name) or 0 for it in spent) for name in ("answers", "compiles"))
        row = score(f"{model}: search from {ten} answers, {ways.COMPILES} compiles", self.cases, found)
        return replace(
            row,
            answers=asked / len(spent),
            compiles=compiled / len(spent),
            gain_alone=math.nan,  # -Oz is among what it tries
            mean_gain_alone=math.nan,
            of_autotuner_alone=math.nan,
        )

    def _greedy(self, model: str) -> Mapping[str, Trials]:
        return self._asked(model, ways.GREEDY)

    def _sampled(self, model: str, temperature: float, then: Then = Then.NOTHING) -> Mapping[str, Trials]:
        return self._asked(model, ways.samples(temperature, then))

    @cached_property
    def _coreset(self) -> Mapping[str, Trials]:
        return self._tried("coreset", FixedLists(ways.CORESET, self._workers))

    @cached_property
    def _random(self) -> Mapping[str, Trials]:
        return self._tried("random lists", RandomLists(self._request.answers, self._request.seed, self._workers))

    @property
    def _first(self) -> str:
        return self._request.models[0][0]

    @property
    def _last(self) -> str:
        """The one whose feedback is sampled."""
        return (self._feedback_models or [self._first])[-1]

    @property
    def _feedback_models(self) -> list[str]:
        return [name for name, manifest in self._manifests.items() if manifest.takes_feedback]

    # Parts

    def add_table(self) -> None:
        """Models and what needs none, at equal compiles; how well models know what they do."""
        ten = min(ways.TEN, self._request.answers)
        one, many, every = (first_answers(1), "first"), (first_answers(ten), f"first {ten}"), (everything, "all")
        rows: list[Score] = []
        for name, manifest in self._manifests.items():
            greedy = self._greedy(name)
            rows.append(self._row(f"{name}: greedy answer", greedy, *one))
            if manifest.takes_feedback:
                second = f"{name}: second answer after {str(manifest.feedback_form).capitalize()} Feedback"
                rows.append(score(second, self.cases, greedy, last_answer, spent=everything))
                rows.append(self._row(f"{name}: both", greedy, *every))
            samples = self._sampled(name, manifest.temperature)
            rows.append(self._row(f"{name}: best of {ten} samples", samples, *many))
            portfolio = self._asked(name, ways.PORTFOLIO)
            rows.append(self._row(f"{name}: portfolio, first list", portfolio, *one))
            rows.append(self._row(f"{name}: portfolio, {ten} lists", portfolio, *many))
            rows.append(self._searched(name, ten))
            self.qualities[name] = quality(self.cases, greedy)
        rows += [
            self._row("coreset: first list", self._coreset, *one),
            self._row(f"coreset: {ten} lists", self._coreset, *many),
            self._row(f"coreset: {ways.CORESET} lists", self._coreset, *every),
        ]
        neighbours = SimilarFunctions(self._corpus, self._labels, ten, self._workers)
        if neighbours.training:
            similar = self._tried(neighbours.name, neighbours)
            rows += [
                self._row("nearest neighbour's list", similar, *one),
                self._row(f"{ten} nearest neighbours' lists", similar, *many),
            ]
        rows += [
            self._row("random list", self._random, *one),
            self._row(f"{ten} random lists", self._random, *many),
            autotuner(self.cases, sum(self._labels[case.key].compiles for case in self.cases) / len(self.cases)),
        ]
        self.scores = rows
        qualities = {name: asdict(it) for name, it in self.qualities.items()}
        self.results |= {"table": [asdict(row) for row in rows], "quality": qualities}
        self._page.section(
            "Models, and what needs none",
            "Improved: functions with fewer instructions than at -Oz. Gain: of all functions together; mean gain: of "
            "the functions. -Oz is a candidate always, but in the last two columns. Finished: of the autotuner's gain, "
            "the lists with the tails that ship behind them, stopped where the count is least. Costs counts what is "
            "tried for it, a list each and ten or so a function more; the best is compiled once again, uncounted.",
        )
        self._page.table(_HEADINGS, ([row.name, *row.cells()] for row in rows))
        if not neighbours.training:
            self._page.text("The corpus has no labelled training functions: there are no nearest neighbours to show.")
        self._page.text("How well the first answers say what they do, of the functions that a model could read whole:")
        self._page.table(_QUALITIES, ([name, *map(_cell, it.values())] for name, it in qualities.items()))

    def add_correlations(self) -> None:
        """Figure 3."""
        found = paper.correlations(self.cases, self._greedy(self._first))
        self.results["correlations"] = {"names": found.names, "matrix": found.matrix.tolist()}
        self._page.section("What is known at inference time", "Pearson's correlations; the paper's figure 3.")
        self._figure(figures.correlation_map(found), "correlations", f"First answers of {self._first}")

    def add_distributions(self) -> None:
        """Figure 4."""
        found = paper.distributions(self.cases, self._greedy(self._first))
        self.results["distributions"] = asdict(found)
        self._page.section("Errors by performance", "The paper's figure 4.")
        self._figure(figures.distribution_plots(found), "distributions", f"First answers of {self._first}")

    def add_tasks(self) -> None:
        """Figure 5."""
        models = {name: self._greedy(name) for name in self._manifests}
        found = paper.comparisons(self.cases, models[self._first], models)
        self.results["tasks"] = [asdict(it) for it in found]
        self._page.section("Task Optimize and Task Feedback", "Greedy answers; the paper's figure 5.")
        self._figure(figures.comparison_bars(found), "tasks", "Gain over -Oz by kind of function")

    def add_sampling(self) -> None:
        """Figure 6."""
        last = self._last
        asked = {
            f"{self._first}: Task Optimize": (self._first, Then.NOTHING),
            f"{last}: Task Optimize": (last, Then.NOTHING),
            f"{last}: sampled, then greedy feedback": (last, Then.GREEDY),
            f"{last}: greedy, then sampled feedback": (last, Then.SAMPLED),
        }
        if not self._feedback_models:
            asked = dict(list(asked.items())[:1])
        found: dict[str, list[Curve]] = {}
        for title, (model, then) in asked.items():
            order = each_with_its_feedback
            found[title] = [
                by_answers(f"T = {warm:g}", self.cases, self._sampled(model, warm, then), self._marks, order)
                for warm in self._request.temperatures
            ]
        self.results["sampling"] = {title: [asdict(it) for it in curves] for title, curves in found.items()}
        self._page.section("Sampling", "-Oz is a candidate always; the paper's figure 6.")
        self._figure(figures.curve_plots(found, "answers a function"), "sampling", "By answers and temperature")

    def add_iteration(self) -> None:
        """Figure 7."""
        found: dict[str, list[Curve]] = {}
        for model in self._feedback_models:
            temperature = self._manifests[model].temperature
            marks = [mark for mark in self._marks if mark <= 1 + ways.STEPS]
            warm, name = self._asked(model, ways.ITERATED_WARM), f"iteration at T = {temperature:g}, again and again"
            found[model] = [
                by_answers("iteration, greedy", self.cases, self._asked(model, ways.ITERATED), marks),
                by_answers(name, self.cases, warm, self._marks),
                by_answers("sampling", self.cases, self._sampled(model, temperature), self._marks),
            ]
        if not found:
            self._page.section("Iteration", "No model was trained on feedback.")
        else:
            self.results["iteration"] = {name: [asdict(it) for it in curves] for name, curves in found.items()}
            self._page.section("Iteration", "Cumulative, at equal numbers of answers; the paper's figure 7.")
            self._figure(figures.curve_plots(found, "answers a function"), "iteration", "Iteration against sampling")

    def add_compiles(self) -> None:
        """All ways on one axis."""
        found: dict[str, list[Curve]] = {}
        marks, answers = self._marks, self._request.answers
        for model, manifest in self._manifests.items():
            sampled = self._sampled(model, manifest.temperature)
            priority = self._asked(model, ways.PRIORITY)
            portfolio = self._asked(model, ways.WHOLE_PORTFOLIO)
            budgets = ways.budgets(answers)
            beams = {it: self._asked(model, ways.beam(it)) for it in budgets}
            searches = {it: self._asked(model, ways.search(it)) for it in budgets}
            curves = [
                by_compiles(f"samples at T = {manifest.temperature:g}", self.cases, sampled, marks),
                by_compiles("Priority Sampling", self.cases, priority, marks),
                by_compiles("portfolio", self.cases, portfolio, [mark for mark in marks if mark <= ways.CORESET]),
                of_budgets("beam search", self.cases, beams),
                of_budgets("search from the model's answers", self.cases, searches),
            ]
            if manifest.takes_feedback:
                then = self._sampled(model, manifest.temperature, Then.GREEDY)
                after = self._asked(model, ways.PRIORITY_THEN)
                curves[1:1] = [
                    by_compiles("samples with feedback", self.cases, then, marks, each_with_its_feedback),
                    by_compiles("Priority Sampling after feedback", self.cases, after, marks),
                ]
            short = [mark for mark in marks if mark <= ways.CORESET]
            curves += [
                by_compiles("coreset", self.cases, self._coreset, short),
                by_compiles("random lists", self.cases, self._random, marks),
            ]
            found[model] = curves
        self.results["compiles"] = {name: [asdict(it) for it in curves] for name, curves in found.items()}
        self._page.section(
            "All ways at equal compiles",
            "A compile is a list that was not tried on the function before. The search looks at the count after each "
            "pass of a list, the others at its end; -Oz is the first list of its budget, and costs the others nothing.",
        )
        self._figure(figures.curve_plots(found, "compiles a function"), "compiles", "Share of the autotuner's gain")
        for model, curves in found.items():
            self._page.text(f"{model}: share of the autotuner's gain after so many compiles")
            shown = [mark for mark in (1, 2, 5, 10, 20, 50, 100) if mark <= answers]
            self._page.table(["", *map(str, shown)], ([it.name, *_shares(it, shown)] for it in curves))

    def add_functions(self) -> None:
        """The functions with the largest gain and loss."""
        greedy = self._greedy(self._first)
        best, worst = examples(self.cases, greedy, _SHOWN)
        self._page.section("Functions", f"Greedy answers of {self._first}, without -Oz as back-up. Most gained:")
        self._page.examples(best)
        self._page.text("Most lost:")
        self._page.examples(worst)

    # What comes out

    def _figure(self, figure: Any, name: str, caption: str) -> None:
        folder = self._request.out / FIGURES
        figures.save(figure, folder, name)
        self._page.figure(folder / f"{name}.png", caption)

    def write(self) -> None:
        """Write the page and the numbers."""
        out = self._request.out
        self._add_costs()
        write_json(out / RESULTS, finite(self.results))
        self._write_numbers(out / NUMBERS)
        self._page.write(out / PAGE)

    def _add_costs(self) -> None:
        """Time, answers and compiles a function, of everything that was measured."""
        rows: list[list[str]] = []
        for name, (_, found) in self._measured.items():
            trials = [found[case.key] for case in self.cases]
            counts = (
                [answers(it.tried) if it.answers is None else it.answers for it in trials],
                [distinct_lists(it.tried) if it.compiles is None else it.compiles for it in trials],
            )
            seconds = sum(it.seconds for it in trials) / len(trials)
            improved = sum(_improves(case, found[case.key]) for case in self.cases) / len(self.cases)
            means = [f"{sum(it) / len(it):,.1f}" for it in counts]
            rows.append([name, *means, f"{seconds:.3f}", f"{improved:.1%}"])
        self._page.section(
            "Costs",
            "Means over the functions; seconds of one core, beside others at work. What strategies of one model share, "
            "reading and compiling, counts for each of them.",
        )
        self._page.table(["", "answers", "distinct lists", "seconds", "functions improved"], rows)

    def _write_numbers(self, path: Path) -> None:
        """A row a method and function."""
        pa = parquet.arrow()
        rows = [(name, case, found[case.key]) for name, (_, found) in self._measured.items() for case in self.cases]
        columns = {
            "method": (pa.string(), [name for name, _, _ in rows]),
            "function": (pa.string(), [case.key for _, case, _ in rows]),
            "oz": (pa.int32(), [case.oz for _, case, _ in rows]),
            "autotuner": (pa.int32(), [case.best for _, case, _ in rows]),
            "counts": (pa.list_(pa.int32()), [[each.count for each in it.tried] for _, _, it in rows]),
            "seconds": (pa.float32(), [it.seconds for _, _, it in rows]),
        }
        parquet.write(path, columns, {"llvm": load().version})


_HEADINGS = (
    "", "answers", "compiles", "improved", "gain over -Oz", "mean gain", "of the autotuner's", "finished",
    "without -Oz", "of the autotuner's",
)  # fmt: skip


_QUALITIES = (
    "", "functions", "read in part", "lists valid", "source count right", "target count right", "the autotuner's list",
    "as good as it", "code parses", "BLEU x 100",
)  # fmt: skip


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def _shares(curve: Curve, marks: Sequence[int]) -> list[str]:
    known = dict(zip(curve.effort, curve.share))
    return [f"{known[mark]:.1%}" if mark in known else "" for mark in marks]


def _improves(case: Case, trials: Trials) -> bool:
    return any(it.count is not None and it.count < case.oz for it in trials.tried)


def finite(value: Any) -> Any:
    """The same document without what JSON cannot say."""
    if isinstance(value, dict):
        return {name: finite(it) for name, it in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [finite(it) for it in value]  # pyright: ignore[reportUnknownVariableType]
    return None if isinstance(value, float) and not math.isfinite(value) else value
