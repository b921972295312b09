"""What lists gain in the place of -Oz, and what they gain behind it.

    python benchmarks/after_oz.py --corpus build/corpus [--functions 400]

The best of the coreset's lists on each held-out function: from the unoptimised function, and after -Oz. -Oz is a
candidate in every row. Prints the gain in instructions and in native bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import run_script
from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset

LISTS, SMALLEST = 50, 10
NEVER = 1 << 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--functions", type=int, default=400)
    options = parser.parse_args()
    corpus, oz = Corpus(options.corpus), load().oz_pipeline
    keys = [entry.hash for entry in corpus.select("test") if entry.oz >= SMALLEST][: options.functions]
    alone = [str(it) for it in coreset(Objective.INSTRUCTIONS, LISTS)]
    lists = (oz, *alone, *(f"{oz},{it}" for it in alone))
    sums: dict[str, Counter[str]] = {"instructions": Counter(), "bytes": Counter()}
    with Sandbox() as sandbox:
        jobs = (Job(corpus.bitcode(key), lists, key, bytes=True) for key in corpus.in_order_of_shards(keys))
        for _, (first, *rest) in sandbox.run(jobs):
            if not first.ok:
                continue
            for measure, total in sums.items():
                base, values = value(first, measure), [value(it, measure) for it in rest]
                instead, behind = values[: len(alone)], values[len(alone) :]
                total["-Oz"] += base
                total["instead of -Oz"] += min(base, *instead)
                total["behind -Oz"] += min(base, *behind)
                total["either"] += min(base, *values)
    print(f"{len(keys)} functions, best of {len(alone)} lists")
    for measure, total in sums.items():
        gains = ", ".join(f"{name} {1 - it / total['-Oz']:.2%}" for name, it in total.items() if name != "-Oz")
        print(f"{measure}: {gains}")


def value(outcome: Outcome, measure: str) -> int:
    """What a list reaches; more than anything where it fails."""
    found = outcome.instructions if measure == "instructions" else outcome.bytes
    return found if outcome.ok and found is not None else NEVER


if __name__ == "__main__":
    sys.exit(run_script(main))
