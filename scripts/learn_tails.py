"""The tails that ship: the passes which, run behind any list, most often still help (`tuner.finish`).

    python scripts/learn_tails.py --corpus build/corpus --objective instructions

Takes training functions and the first lists of the coreset. Pass by pass, the tail gets the pass that adds most to what
the lists gain on these functions, each alone, the first three together, and all together, the best state on the way
counting each time; it ends where the best pass adds too little. With --others it stays as it is, and the tails are
learned that run behind the best states that are left then: of the passes that often follow each other in winners,
those that together add most. Writes `src/secondpass/tuner/knowledge_data/tails.json`. Some minutes an objective.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError, LLVMError, run_script
from secondpass.files import write_whole
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.passes import Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset, shipped
from secondpass.tuner.explorer import Explorer, State
from secondpass.tuner.search import OZ, Search
from secondpass.tuner.tails import Tails, tails

TARGET = Path(__file__).parent.parent / "src" / "secondpass" / "tuner" / "knowledge_data" / "tails.json"
WORDS = [entry.text for entry in VOCABULARY]
SMALLEST, LARGEST = 15, 400
"""Unoptimised instructions of the functions."""
ENOUGH = 0.02
"""The three gains' relative increases together that a pass must bring."""
UNUSABLE = 1 << 30
CANDIDATES, LENGTHS = 600, (1, 2, 3, 4, 5, 6)
"""Passes in a row that are tried as other tails, of these lengths."""
STARTS = 4
"""Lists of the coreset whose ends they are tried behind, each list alone."""


@dataclass(frozen=True, slots=True)
class Continued(Outcome):
    """What lists leave of a function.

    Attributes:
        oz: its value at -Oz.
        reached: the least on the way of each list and the tail so far, (lists,).
        following: the value after each pass more, (lists, passes); or the least on the way of each candidate,
            (lists, candidates).
    """

    oz: int = 0
    reached: tuple[int, ...] = ()
    following: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Continue:
    """Walk each list and the tail, then every pass behind it. Called in a worker with a function's bitcode."""

    objective: Objective
    lists: tuple[Words, ...]
    tail: Words

    def __call__(self, bitcode: bytes, _: str) -> Outcome:
        """What comes out."""
        with Explorer(bitcode, self.objective, 20) as explorer:

            def value(state: State) -> int:
                found = explorer.value(state)
                return UNUSABLE if found is None else found

            def after(words: Words) -> int:
                try:
                    return value(explorer.walk(words))
                except LLVMError:
                    return UNUSABLE

            reached: list[int] = []
            following: list[tuple[int, ...]] = []
            for words in self.lists:
                whole = (*words, *self.tail)
                states = [state for state, _ in explorer.along(whole)]
                near = 1.3 * min((it.instructions for it in states), default=0)
                reached.append(min((value(it) for it in states if it.instructions <= near), default=UNUSABLE))
                following.append(tuple(after((*whole, word)) for word in WORDS))
            return Continued(Status.OK, oz=after(OZ), reached=tuple(reached), following=tuple(following))


@dataclass(frozen=True, slots=True)
class Follow:
    """Try candidates for other tails. Called in a worker with a function's bitcode."""

    objective: Objective
    lists: tuple[Words, ...]
    tail: Words
    candidates: tuple[Words, ...]

    def __call__(self, bitcode: bytes, _: str) -> Outcome:
        """What comes out."""
        reached: list[int] = []
        following: list[tuple[int, ...]] = []
        with Explorer(bitcode, self.objective, 20) as explorer:
            for words in self.lists:
                search = Search(explorer)
                search.try_list((*words, *self.tail))
                if search.best is None:
                    return Outcome(Status.BROKEN, "a list fails on it")
                best, value = search.lists[search.best], search.value(search.best)
                reached.append(value)
                values: list[int] = []
                for candidate in self.candidates:
                    search = Search(explorer)
                    search.try_list((*best, *candidate))
                    values.append(value if search.best is None else min(value, search.value(search.best)))
                following.append(tuple(values))
            oz = explorer.confirm(OZ)
        if oz is None:
            return Outcome(Status.BROKEN, "-Oz fails on it")
        return Continued(Status.OK, oz=oz, reached=tuple(reached), following=tuple(following))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--objective", choices=list(Objective), type=Objective, default=Objective.INSTRUCTIONS)
    parser.add_argument("--functions", type=int, default=300)
    parser.add_argument("--lists", type=int, default=6, help="of the coreset")
    parser.add_argument("--longest", type=int, default=8, help="passes of the tail at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, metavar="N", help="learn N other tails, and keep the first as it is")
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    keys = [it.hash for it in corpus.select("train", largest=LARGEST) if it.source >= SMALLEST]
    if not keys:
        raise CorpusError(f"{options.corpus}: no training function of {SMALLEST} to {LARGEST} instructions there")
    keys = corpus.in_order_of_shards(random.Random(options.seed).sample(keys, min(options.functions, len(keys))))
    modules = [corpus.bitcode(key) for key in keys]
    lists = tuple(it.words for it in coreset(options.objective, options.lists))
    before = tails(options.objective)
    if options.others:
        found = Tails(before.first, tuple(other_tails(modules, options.objective, before.first, options.others)))
    else:
        found = Tails(first_tail(modules, options.objective, lists, options.longest), before.others)
    every: dict[str, Any] = json.loads(TARGET.read_text())
    every[options.objective] = {"first": " ".join(found.first), "others": [" ".join(it) for it in found.others]}
    write_whole(TARGET, f"{json.dumps(every, indent=1)}\n".encode())
    return 0


def first_tail(modules: Sequence[bytes], objective: Objective, lists: tuple[Words, ...], longest: int) -> Words:
    """The tail behind every list, pass by pass."""
    tail: Words = ()
    while len(tail) < longest:
        found = list(continued(modules, Continue(objective, lists, tail), 60))
        before, after = gains(found)
        if not before.all():
            raise CorpusError("no list of the coreset gains anything on these functions: take more of them")
        more = ((after - before[:, None]) / before[:, None]).sum(axis=0)
        best = int(more.argmax())
        print(f"{len(tail)} passes: {' '.join(f'{it:.2%}' for it in before)} of {len(found)} functions;", end=" ")
        print(f"{WORDS[best]} adds {more[best]:.1%}", flush=True)
        if more[best] < ENOUGH:
            break
        tail = (*tail, WORDS[best])
    return tail


def other_tails(modules: Sequence[bytes], objective: Objective, tail: Words, most: int) -> Iterator[Words]:
    """Tails for the states where the first one ends: greedily, what adds most to the mean gain."""
    lists = tuple(it.words for it in coreset(objective, STARTS))
    candidates = in_a_row(objective)
    found = list(continued(modules, Follow(objective, lists, tail, candidates), 120))
    oz = np.array([it.oz for it in found for _ in it.reached])
    reached = np.array([it.reached for it in found]).ravel()
    following = np.array([it.following for it in found]).reshape(len(reached), len(candidates))
    print(f"{len(found)} functions: mean gain {1 - np.minimum(reached / oz, 1).mean():.2%}")
    for _ in range(most):
        added = np.maximum(np.minimum(reached, oz)[:, None] - following, 0) / oz[:, None]
        best = int(added.mean(axis=0).argmax())
        if not added[:, best].any():
            return
        reached = np.minimum(reached, following[:, best])
        print(f"{1 - np.minimum(reached / oz, 1).mean():.2%} with {' '.join(candidates[best])}", flush=True)
        yield candidates[best]


def in_a_row(objective: Objective) -> tuple[Words, ...]:
    """The passes that most often follow each other in winners, the longer ones counting more."""
    known, counted = set(WORDS), Counter[Words]()
    for words, weight in shipped(objective).winners.items():
        if known.issuperset(words):
            for length in LENGTHS:
                parts = {words[at : at + length] for at in range(len(words) - length + 1)}
                counted.update(dict.fromkeys(parts, weight * length))
    return tuple(words for words, _ in counted.most_common(CANDIDATES))


def continued(modules: Sequence[bytes], unit: Continue | Follow, seconds: float) -> Iterator[Continued]:
    """The functions' outcomes; none of one that a pass kills the worker on, or that takes longer."""
    with Sandbox(timeout=seconds, fork=True) as sandbox:
        for _, (outcome,) in sandbox.run(Job(module, ("",), str(at), each=unit) for at, module in enumerate(modules)):
            if isinstance(outcome, Continued) and outcome.oz < UNUSABLE:
                yield outcome


def gains(found: Sequence[Continued]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean gains over -Oz of each list, of the first three and of all: now (3,), and after each pass (3, passes)."""
    before, after = np.zeros(3), np.zeros((3, len(WORDS)))
    for it in found:
        reached = np.minimum(it.reached, it.oz)
        following = np.minimum(np.array(it.following), reached[:, None])
        together = ((reached[:first].min(), following[:first].min(axis=0)) for first in (3, None))
        for row, (left, then) in enumerate([(reached.mean(), following.mean(axis=0)), *together]):
            before[row] += (1 - left / it.oz) / len(found)
            after[row] += (1 - then / it.oz) / len(found)
    return before, after


if __name__ == "__main__":
    sys.exit(run_script(main))
