"""Which passes give one result or another: the same lists many times over, in processes with different histories.

    python benchmarks/determinism.py --corpus build/corpus [--functions 200] [--times 6]

Every pass of the vocabulary behind `sroa`, behind -Oz, before -Oz, and between `sroa` and -Oz. Prints each list that
gave two counts on a function, and the passes in such lists.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections import Counter
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import run_script
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox

OZ = "default<O2>"
SMALLEST_OZ, LARGEST = 30, 600


def lists_with(word: str) -> list[tuple[str, ...]]:
    return [("sroa", word), (OZ, word), (word, OZ), ("sroa", word, OZ)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--functions", type=int, default=200)
    parser.add_argument("--times", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    corpus, rng = Corpus(options.corpus), random.Random(options.seed)
    entries = [it for it in corpus.select("train", largest=LARGEST) if it.oz >= SMALLEST_OZ][: options.functions]
    words = load().words
    lists = [it for word in words for it in lists_with(word)]
    unsteady: Counter[str] = Counter()
    counts: dict[tuple[str, tuple[str, ...]], set[int]] = {}

    def jobs():
        for _ in range(options.times):
            for entry in rng.sample(entries, len(entries)):
                shuffled = rng.sample(lists, len(lists))  # each run with another history behind it
                number = next(numbers)
                order[number] = shuffled
                pipelines = tuple(str(PassList.of(*it)) for it in shuffled)
                yield Job(corpus.bitcode(entry.hash), pipelines, f"{number} {entry.hash}")

    numbers = itertools.count()  # of the jobs: some are still on their way when others have come back
    order: dict[int, list[tuple[str, ...]]] = {}
    with Sandbox() as sandbox:
        for job, outcomes in sandbox.run(jobs()):
            number, key = job.name.split()
            for words_, outcome in zip(order.pop(int(number)), outcomes):
                if outcome.ok:
                    counts.setdefault((key, words_), set()).add(outcome.instructions)
    for (key, words_), seen in sorted(counts.items()):
        if len(seen) > 1:
            print(f"{key} {' '.join(words_)}: {sorted(seen)}")
            unsteady.update(word for word in words_ if word not in (OZ, "sroa"))
    runs = len(lists) * len(entries) * options.times
    print(f"{runs:,} runs on {len(entries)} functions; unsteady passes: {dict(unsteady) or 'none'}")


if __name__ == "__main__":
    sys.exit(run_script(main))
