"""What the tuner's compiles cost: against compiling every list whole, and with one worker against two.

    python benchmarks/tuner_throughput.py --corpus build/corpus [--functions 60] [--rounds 5]

First the lists that a search of 150 compiles asks for on each function, through the states (`tuner.explorer`) and
each compiled from the unoptimised module, alternately in one process. Then whole searches in the sandbox, one worker
and two, alternately. Prints the medians with their spread. On an idle machine.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import InputError, LLVMError, run_script
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.coreset import shipped
from secondpass.tuner.explorer import Explorer
from secondpass.tuner.knowledge import Sampler
from secondpass.tuner.search import Budget, Search
from secondpass.tuner.work import Item, Searched, SearchUnit, Settings

OBJECTIVE = Objective.INSTRUCTIONS
COMPILES = 150
LARGEST = 300


class Recorded(Search):
    """A search that remembers the lists it had to run."""

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(explorer)
        self.asked: list[Words] = []

    def try_list(self, words: Words):
        before = self.compiles
        state = super().try_list(words)
        if self.compiles > before:
            self.asked.append(words)
        return state


def asked_for(bitcode: bytes, key: str) -> list[Words]:
    with Explorer(bitcode, OBJECTIVE) as explorer:
        search = Recorded(explorer)
        knowledge = shipped(OBJECTIVE)
        sampler = Sampler(knowledge, load().words)
        search.run(knowledge, sampler, Budget(COMPILES), random.Random(key))
        return search.asked


def through_states(bitcode: bytes, lists: Iterable[Words]) -> int:
    with Explorer(bitcode, OBJECTIVE) as explorer:
        for words in lists:
            explorer.walk(words)
        return explorer.steps


def whole(bitcode: bytes, lists: Iterable[Words]) -> None:
    with Module.parse(bitcode) as module:
        for words in lists:
            with module.clone() as copy:
                try:
                    copy.run(PassList.of(*words))
                except LLVMError:
                    continue
                copy.verify()
                _ = copy.instruction_count


def searches(sandbox: Sandbox, bitcodes: dict[str, bytes]) -> tuple[int, float]:
    """Compiles, and seconds."""
    settings = Settings(OBJECTIVE, shipped(OBJECTIVE), Budget(COMPILES))
    jobs = [Job(code, (Item(key).to_text(),), key, each=SearchUnit(settings)) for key, code in bitcodes.items()]
    started, compiles = time.perf_counter(), 0
    for _, (outcome,) in sandbox.run(jobs):
        assert isinstance(outcome, Searched), outcome
        compiles += outcome.compiles
    return compiles, time.perf_counter() - started


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--functions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    keys = [it.hash for it in corpus.select("train", largest=LARGEST) if it.oz > 2][: options.functions]
    if not keys:
        raise InputError(f"{options.corpus}: it has no training function of 3 to {LARGEST} instructions")
    bitcodes = {key: corpus.bitcode(key) for key in keys}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the explorer says there what it runs
    lists = {key: asked_for(code, key) for key, code in bitcodes.items()}
    asked = sum(map(len, lists.values()))
    passes = sum(len(words) for it in lists.values() for words in it)
    ratios, rates, steps = [], [], 0
    for _ in range(options.rounds):
        started = time.process_time()
        steps = sum(through_states(code, lists[key]) for key, code in bitcodes.items())
        shared = time.process_time() - started
        started = time.process_time()
        for key, code in bitcodes.items():
            whole(code, lists[key])
        ratios.append((time.process_time() - started) / shared)
        rates.append(asked / shared)
    print(f"{len(keys)} functions, {asked:,} lists of {passes:,} passes, of which {steps:,} ran")
    print(f"through the states: {statistics.median(rates):,.0f} lists a CPU second, {spread(ratios)} times whole lists")
    scaling, single = [], []
    with Sandbox(1, reproducible=True) as one, Sandbox(2, reproducible=True) as two:
        for sandbox in (one, two):
            searches(sandbox, bitcodes)  # workers start, tables are made
        for _ in range(options.rounds):
            compiles, seconds = searches(one, bitcodes)
            both, less = searches(two, bitcodes)
            single.append(compiles / seconds)
            scaling.append((both / less) / (compiles / seconds))
    print(f"one worker: {statistics.median(single):,.0f} compiles a second; two: {spread(scaling)} times that")


if __name__ == "__main__":
    sys.exit(run_script(main))
