"""Which passes give one result or another: the same lists many times over, in processes with different histories.

    python benchmarks/determinism.py --corpus build/corpus [--functions 200] [--times 6] [--passes gvn-sink]

Every pass of the vocabulary, or those named, behind `sroa`, behind -Oz, before -Oz, and between `sroa` and -Oz, each
time in a sandbox of its own. Prints each list that left one thing or another of a function, and the passes in such
lists. Lists with passes that are known to depend on addresses run in a process of their own there, as everywhere
(`llvm.worker`): what is to be seen is that no list differs.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
    parser.add_argument("--passes", nargs="+", metavar="PASS", help="of the vocabulary (default: all)")
    options = parser.parse_args()
    corpus, rng = Corpus(options.corpus), random.Random(options.seed)
    entries = [it for it in corpus.select("train", largest=LARGEST) if it.oz >= SMALLEST_OZ][: options.functions]
    words = options.passes or load().words
    lists = [it for word in words for it in lists_with(word)]
    unsteady: Counter[str] = Counter()
    found: dict[tuple[str, tuple[str, ...]], set[tuple[int, bytes]]] = {}
    for _ in range(options.times):
        # Each run with another history behind it, and each time with other addresses.
        orders = {it.hash: rng.sample(lists, len(lists)) for it in rng.sample(entries, len(entries))}
        with Sandbox() as sandbox:
            for job, outcomes in sandbox.run(jobs(corpus, orders)):
                for words_, it in zip(orders[job.name], outcomes, strict=True):
                    if it.ok:
                        made = it.instructions, hashlib.sha1(it.bitcode or b"").digest()
                        found.setdefault((job.name, words_), set()).add(made)
    for (key, words_), seen in sorted(found.items()):
        if len(seen) > 1:
            print(f"{key} {' '.join(words_)}: {len(seen)} results, of {sorted({it for it, _ in seen})} instructions")
            unsteady.update(word for word in words_ if word not in (OZ, "sroa"))
    runs = len(lists) * len(entries) * options.times
    print(f"{runs:,} runs on {len(entries)} functions; unsteady passes: {dict(unsteady) or 'none'}")


def jobs(corpus: Corpus, orders: Mapping[str, Sequence[tuple[str, ...]]]) -> Iterator[Job]:
    for key, order in orders.items():
        yield Job(corpus.bitcode(key), tuple(str(PassList.of(*it)) for it in order), key, keep=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
