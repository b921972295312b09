"""Do random lists ever hurt? Many of them on many real functions: every death must be a reported result.

    python benchmarks/random_lists.py --corpus build/corpus --functions 250 --lists 100

Every result is verified by LLVM in the worker; for a sample of them the bitcode is fetched, parsed
again here, and its count compared with the one reported, and the function must still be defined.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import run_script
from secondpass.llvm.jobs import Job
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY

LARGEST = 300
"""Instructions, unoptimised, of the largest function that takes part."""
CHECKED_AGAIN = 4
"""Lists a function whose result is examined once more, outside the sandbox."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--functions", type=int, default=250)
    parser.add_argument("--lists", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    corpus = Corpus(options.corpus)
    chosen = rng.sample(corpus.select(largest=LARGEST), options.functions)
    records = [corpus.record(entry.hash) for entry in chosen]
    names = {record.hash: record.name for record in records}
    words = [entry.text for entry in VOCABULARY]
    jobs = []
    for record in records:
        lists = tuple(str(PassList.of(*rng.choices(words, k=rng.randint(1, 20)))) for _ in range(options.lists))
        jobs.append(Job(record.bitcode, lists, record.hash))
    status: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    started = time.time()
    with Sandbox() as sandbox:
        finished = list(sandbox.run(jobs))
        seconds, deaths = time.time() - started, sandbox.deaths
        for job, outcomes in finished:
            assert len(outcomes) == len(job.lists)
            for outcome in outcomes:
                status[outcome.status] += 1
                if not outcome.ok:
                    reasons[f"{outcome.status}: {outcome.message[:100]}"] += 1
        wrong = sum(silently_wrong(sandbox, job, outcomes, names[job.name]) for job, outcomes in finished)
    total = sum(status.values())
    print(f"{total:,} lists on {len(jobs)} functions in {seconds:.0f} s: {dict(status)}, {deaths} workers died")
    for reason, count in reasons.most_common(20):
        print(f"{count:6}  {reason}")
    print(f"{CHECKED_AGAIN * len(jobs):,} results examined again, {wrong} wrong")
    return 1 if wrong or status["broken"] else 0


def silently_wrong(sandbox: Sandbox, job: Job, outcomes: list, name: str) -> int:
    """How many of a few results are not what was reported."""
    wrong = 0
    some = replace(job, lists=job.lists[:CHECKED_AGAIN], keep=True)
    for reported, again in zip(outcomes, sandbox.compile(some)):
        if not again.ok:
            wrong += reported.ok
            continue
        with Module.parse(again.bitcode) as module:
            defined = [function.name for function in module.functions()]
            wrong += module.instruction_count != reported.instructions or name not in defined
    return wrong


if __name__ == "__main__":
    sys.exit(run_script(main))
