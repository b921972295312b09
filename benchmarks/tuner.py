"""The autotuner against other ways of searching, on the same held-out functions.

    python benchmarks/tuner.py --corpus build/corpus --out build/tuner [--functions 56] [--seeds 6]

Gain over -Oz (instructions, all functions together, -Oz itself always a candidate) against the number of
compiles and against seconds, for

    random     the paper's way: lists of random passes; then the best lists of all functions tried on each;
               then every pass dropped that is not needed
    nevergrad  DiscreteOnePlusOne over the same vocabulary, a choice for each of 20 places (what CompilerGym offers)
    greedy     the pass that helps most behind what is there, again and again
    ours       `secondpass.tuner` with what the package ships, which was learned from training functions alone

Ours is a matter of luck, so it can be searched with several seeds; the table has the first, and below it stands what
each reaches, and what they reach where a search ends as soon as so many compiles in a row have found nothing.

A compile is one list whose count is found out; seconds are those inside LLVM and the searcher's own. Everything
found is kept in OUT/traces.jsonl: an interrupted run goes on there. Prints the table and draws OUT/tuner.png and
OUT/tuner.svg. Needs the extras `corpus` and `report`, and `pip install nevergrad`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from secondpass.corpus.store import Corpus
from secondpass.errors import InputError, run_script
from secondpass.files import appending, read_records
from secondpass.llvm.jobs import Job
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import Objective
from secondpass.tuner.coreset import shipped
from secondpass.tuner.search import OZ, Budget
from secondpass.tuner.work import Item, Searched, SearchUnit, Settings, outcomes

WORDS = [entry.text for entry in VOCABULARY]
SMALLEST_OZ, LARGEST = 20, 300
"""Functions measured: instructions at -Oz at least, unoptimised at most."""
COMPILES = {"random": 37_000, "nevergrad": 400, "greedy": 4_000, "ours": 4_000}
LONGEST = 20
MARKS = (10, 50, 100, 200, 400, 1_000, 2_000, 4_000, 10_000, 37_000)
GOAL = 400
PATIENCES = (100, 150, 200, 250, 300, 400)
LONGEST_SEARCHES = (400, 800, 1_600, 4_000)
"""Compiles in a row that found nothing, after which a search might end, and its most compiles otherwise."""
BROADCAST = 50


class Evaluator:
    """Counts after lists on one function, each list compiled from the start."""

    def __init__(self, sandbox: Sandbox, bitcode: bytes, key: str) -> None:
        self._sandbox, self._bitcode, self._key = sandbox, bitcode, key
        self.compiles, self.llvm_seconds, self._started = 0, 0.0, time.process_time()
        self.trace: list[tuple[int, float, int]] = []
        self.best: tuple[int, Words] | None = None

    def __call__(self, lists: Sequence[Words]) -> list[int | None]:
        """The counts, None for a list that fails."""
        job = Job(self._bitcode, tuple(str(PassList.of(*words)) for words in lists), self._key)
        counts: list[int | None] = []
        for words, outcome in zip(lists, self._sandbox.compile(job)):
            self.compiles += 1
            self.llvm_seconds += outcome.seconds
            counts.append(outcome.instructions if outcome.ok else None)
            if outcome.ok and (self.best is None or outcome.instructions < self.best[0]):
                self.best = (outcome.instructions, words)
                seconds = self.llvm_seconds + time.process_time() - self._started
                self.trace.append((self.compiles, round(seconds, 4), outcome.instructions))
        return counts

    def result(self) -> dict:
        """What a method found, for the file."""
        seconds = self.llvm_seconds + time.process_time() - self._started
        count, words = self.best or (0, ())
        return {"trace": self.trace, "compiles": self.compiles, "seconds": seconds, "best": count, "passes": words}


def search_randomly(evaluate: Evaluator, key: str, compiles: int) -> None:
    rng = random.Random(f"random {key}")
    evaluate([OZ])
    while evaluate.compiles < compiles:
        batch = min(500, compiles - evaluate.compiles)
        evaluate([tuple(rng.choice(WORDS) for _ in range(rng.randint(1, LONGEST))) for _ in range(batch)])


def search_with_nevergrad(evaluate: Evaluator, key: str, compiles: int) -> None:
    import nevergrad
    import numpy

    places = {f"p{index}": nevergrad.p.Choice([None, *WORDS]) for index in range(LONGEST)}
    parameters = nevergrad.p.Instrumentation(**places)
    parameters.random_state = numpy.random.RandomState(random.Random(key).randrange(1 << 31))
    optimizer = nevergrad.optimizers.registry["DiscreteOnePlusOne"](parameters, budget=compiles)
    (oz,) = evaluate([OZ])
    while evaluate.compiles < compiles:
        asked = optimizer.ask()
        words = tuple(word for word in asked.kwargs.values() if word is not None)
        (count,) = evaluate([words]) if words else (None,)
        optimizer.tell(asked, 10 * oz if count is None else count)


def search_greedily(evaluate: Evaluator, key: str, compiles: int) -> None:
    evaluate([OZ])
    words: Words = ()
    least = None
    while evaluate.compiles < compiles:
        counts = evaluate([(*words, word) for word in WORDS])
        count, word = min((count, word) for word, count in zip(WORDS, counts) if count is not None)
        if least is not None and count >= least:
            return
        words, least = (*words, word), count


METHODS: dict[str, Callable[[Evaluator, str, int], None]] = {
    "random": search_randomly,
    "nevergrad": search_with_nevergrad,
    "greedy": search_greedily,
}


def search_ours(sandbox: Sandbox, bitcode: bytes, key: str, compiles: int, seed: int) -> dict:
    settings = Settings(Objective.INSTRUCTIONS, shipped(Objective.INSTRUCTIONS), Budget(compiles), seed, traced=True)
    ((_, outcome),) = outcomes({key: Item(key)}, lambda _: bitcode, SearchUnit(settings), sandbox.run)
    if not isinstance(outcome, Searched):
        raise InputError(f"function {key} cannot be searched: {outcome.status}: {outcome.message}")
    best = outcome.found[0]
    return {
        "trace": outcome.trace,
        "compiles": outcome.compiles,
        "seconds": outcome.seconds,
        "best": best.value,
        "passes": best.passes,
    }


def finish_randomly(sandbox: Sandbox, corpus: Corpus, results: dict[tuple[str, str], dict]) -> None:
    """The paper's last two steps: the winners of all functions on each, and the minimisation of the best."""
    found = {key: result for (method, key), result in results.items() if method == "random"}
    winners = [words for words, _ in Counter(tuple(it["passes"]) for it in found.values()).most_common(BROADCAST)]
    for key, result in found.items():
        evaluate = Evaluator(sandbox, corpus.bitcode(key), key)
        evaluate(winners)
        if evaluate.best is None or evaluate.best[0] > result["best"]:
            evaluate.best = (result["best"], tuple(result["passes"]))
        count, words = evaluate.best
        index = 0
        while index < len(words) and len(words) > 1:
            shorter = words[:index] + words[index + 1 :]
            (reached,) = evaluate([shorter])
            if reached is not None and reached <= count:
                words, count = shorter, reached
            else:
                index += 1
        compiles, seconds = result["compiles"] + evaluate.compiles, result["seconds"] + evaluate.llvm_seconds
        trace = [*result["trace"], (compiles, seconds, count)]
        finished = {"trace": trace, "compiles": compiles, "seconds": seconds, "best": count, "passes": words}
        results["random, finished", key] = finished


def at(trace: Sequence[Sequence[float]], limit: float, column: int, oz: int) -> int:
    """The best count within a limit of compiles (column 0) or seconds (column 1)."""
    return min((point[2] for point in trace if point[column] <= limit), default=oz)


def gain_at(results: dict[tuple[str, str], dict], oz: dict[str, int], method: str, limit: float, column: int) -> float:
    best = sum(min(oz[key], int(at(results[method, key]["trace"], limit, column, oz[key]))) for key in oz)
    return 1 - best / sum(oz.values())


def print_table(results: dict[tuple[str, str], dict], oz: dict[str, int], methods: Sequence[str]) -> None:
    print(f"\n{len(oz)} functions, {sum(oz.values()):,} instructions at -Oz; gain over -Oz by compiles a function")
    print(f"{'':18}" + "".join(f"{mark:>9,}" for mark in MARKS) + f"{'end':>9}{'compiles':>10}{'seconds':>9}")
    for method in methods:
        compiles = [results[method, key]["compiles"] for key in oz]
        seconds = sum(results[method, key]["seconds"] for key in oz) / len(oz)
        cells = [
            f"{gain_at(results, oz, method, mark, 0):9.2%}" if mark <= 1.05 * max(compiles) else " " * 9
            for mark in MARKS
        ]
        end = gain_at(results, oz, method, 1e9, 0)
        print(f"{method:18}{''.join(cells)}{end:9.2%}{sum(compiles) / len(oz):10,.0f}{seconds:9.2f}")
    if not {"random, finished", "ours"} <= set(methods):
        return
    goal, ours = gain_at(results, oz, "random, finished", 1e9, 0), gain_at(results, oz, "ours", GOAL, 0)
    print(f"goal: what random reaches in the end, {goal:.2%}, within {GOAL} compiles; ours has {ours:.2%} there")


def print_seeds(results: dict[tuple[str, str], dict], oz: dict[str, int], methods: Sequence[str], most: int) -> None:
    print(f"\n{len(methods)} seeds; gain after so many compiles, the seeds' mean (least to most)")
    for mark in MARKS:
        if mark <= most:
            gains = [gain_at(results, oz, method, mark, 0) for method in methods]
            print(f"{mark:>9,}  {fmean(gains):.2%} ({min(gains):.2%} to {max(gains):.2%})")
    longest = [it for it in LONGEST_SEARCHES if it <= most]
    print("\nended after so many compiles in a row that found nothing: mean gain, compiles a function in the mean")
    print(f"{'':9}" + "".join(f"{f'at most {end:,}':>18}" for end in longest))
    traces = [(results[method, key]["trace"], oz[key]) for method in methods for key in oz]
    for patience in PATIENCES:
        cells: list[str] = []
        for end in longest:
            ends = [end_of(trace, patience, end) for trace, _ in traces]
            left = sum(at(trace, last, 0, first) for (trace, first), last in zip(traces, ends))
            gain = 1 - left / sum(oz.values()) / len(methods)
            cells.append(f"{f'{gain:.2%} {fmean(ends):6,.0f}':>18}")
        print(f"{patience:>9,}{''.join(cells)}")


def end_of(trace: Sequence[Sequence[float]], patience: int, most: int) -> int:
    """The compiles after which a search with this patience ends."""
    last = 0
    for compiles, *_ in trace:
        if compiles - last > patience:
            break
        last = int(compiles)
    return min(last + patience, most)


def draw(results: dict[tuple[str, str], dict], oz: dict[str, int], methods: Sequence[str], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained", sharey=True)
    labels = ("compiles a function", "seconds a function")
    for column, (axis, label) in enumerate(zip(axes, labels)):
        for method in methods:
            end = max(results[method, key]["compiles" if column == 0 else "seconds"] for key in oz)
            limits = numpy.geomspace(1 if column == 0 else 1e-3, end, 120)
            axis.plot(limits, [100 * gain_at(results, oz, method, limit, column) for limit in limits], label=method)
        axis.set(xscale="log", xlabel=label)
        axis.grid(alpha=0.3)
    axes[0].axvline(GOAL, color="gray", linestyle=":", linewidth=1)
    axes[0].set_ylabel("fewer instructions than -Oz, %")
    axes[0].legend()
    figure.suptitle(f"Search on {len(oz)} held-out functions")
    for suffix in ("png", "svg"):
        figure.savefig(out / f"tuner.{suffix}", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--functions", type=int, default=56)
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--compiles", type=int, default=COMPILES["ours"], help="how many lists ours tries")
    parser.add_argument("--seeds", type=int, default=1, help="how often ours searches each function")
    parser.add_argument("--methods", nargs="+", default=list(COMPILES), choices=list(COMPILES))
    parser.add_argument("--again", nargs="*", default=[], help="methods whose kept results are not used")
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    entries = [it for it in corpus.select(options.split, largest=LARGEST) if it.oz >= SMALLEST_OZ][: options.functions]
    oz = {entry.hash: entry.oz for entry in entries}
    options.out.mkdir(parents=True, exist_ok=True)
    traces = options.out / "traces.jsonl"
    results: dict[tuple[str, str], dict] = {}
    for result in read_records(traces):
        if result["method"].partition(",")[0] not in options.again:  # with all its seeds
            results[result["method"], result["key"]] = result
    with (
        Sandbox(1, timeout=300, reproducible=True) as ours,
        Sandbox(1, timeout=300) as sandbox,
        appending(traces) as keep,
    ):
        seeded = ["ours", *(f"ours, seed {seed}" for seed in range(1, options.seeds))]
        searched = [*options.methods, *(seeded[1:] if "ours" in options.methods else ())]
        for key in oz:
            for method in searched:
                if (method, key) in results:
                    continue
                if method in seeded:
                    result = search_ours(ours, corpus.bitcode(key), key, options.compiles, seeded.index(method))
                else:
                    evaluate = Evaluator(sandbox, corpus.bitcode(key), key)
                    METHODS[method](evaluate, key, COMPILES[method])
                    result = evaluate.result()
                results[method, key] = result
                keep({"method": method, "key": key, **result})
        methods = [method for method in options.methods if all((method, key) in results for key in oz)]
        if "random" in methods:
            finish_randomly(sandbox, corpus, results)
            methods.insert(methods.index("random") + 1, "random, finished")
    print_table(results, oz, methods)
    if "ours" in methods:
        print_seeds(results, oz, seeded, options.compiles)
    draw(results, oz, methods, options.out)


if __name__ == "__main__":
    sys.exit(run_script(main))
