"""The sets of options of code generation that ship: what makes modules of training projects smaller.

    python scripts/learn_codegen.py --corpus build/corpus [--modules 80] [--sets 16]

Takes modules of training projects, drawn by chance, optimised by clang -Oz. Each set is found by hill climbing, one
option more or less at a time, for what it takes off the geometric mean of the modules' text beside the sets before.
Writes `src/secondpass/driver/codegen.json` (`driver.codegen`), and prints what the first sets reach together; then the
same for modules of the validation projects, which nothing was chosen on. Half an hour of two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from secondpass.corpus.store import Corpus, Split
from secondpass.driver.codegen import Options, words_of
from secondpass.errors import run_script
from secondpass.llvm import objects
from secondpass.llvm.toolchain import find_clang

TARGET = Path(__file__).parent.parent / "src" / "secondpass" / "driver" / "codegen.json"
POOL = (
    "-enable-machine-outliner=always",
    "-outliner-benefit-threshold=2",
    "-outliner-benefit-threshold=16",
    "-regalloc=basic",
    "-apply-ext-tsp-for-size",
    "-enable-ext-tsp-block-placement",
    "-disable-block-placement",
    "-aggressive-machine-cse",
    "-disable-machine-cse",
    "-disable-machine-licm",
    "-disable-machine-sink",
    "-machine-sink-split=false",
    "-sink-insts-to-avoid-spills",
    "-disable-cgp",
    "-disable-lsr",
    "-lsr-drop-solution",
    "-consthoist-gep",
    "-no-x86-call-frame-opt",
    "-disable-x86-lea-opt",
    "-x86-cmov-converter-force-all",
    "-pre-RA-sched=list-ilp",
    "-enable-misched=false",
    "-post-RA-scheduler",
    "-terminal-rule=false",
    "-join-splitedges",
    "-huge-size-for-split=0",
    "-split-spill-mode=size",
    "-tail-merge-size=1",
    "-min-jump-table-entries=1000",
    "-optsize-jump-table-density=60",
    "-aggressive-ext-opt",
)
"""What made some of ten modules smaller on its own, of the 1,200 switches and the settings of clang's back end; without
those that change what an ABI promises, are marked as unfinished, or do nothing but debug."""
SMALLEST, LARGEST = 20_000, 400_000
"""Bytes of unoptimised bitcode."""


class Modules:
    """Modules, and the text that clang makes of each with some options.

    Args:
        paths: unoptimised bitcode.
        folder: for what is made.
    """

    def __init__(self, paths: Iterable[Path], folder: Path) -> None:
        self._folder = folder
        self._known: dict[frozenset[str], list[float]] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = list(pool.map(self._optimised, enumerate(paths)))
        self.paths = [it for it in made if it is not None]
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._plain = list(self._pool.map(lambda it: self._text(it, ()), self.paths))

    def ratios(self, options: Iterable[str]) -> list[float]:
        """Each module's text, against that with no options; 1 where clang does not take them."""
        key = frozenset(options)
        if key not in self._known:
            texts = self._pool.map(lambda it: self._text(it, tuple(sorted(key))), self.paths)
            self._known[key] = [text / plain if text else 1.0 for text, plain in zip(texts, self._plain)]
        return self._known[key]

    def _optimised(self, numbered: tuple[int, Path]) -> Path | None:
        number, path = numbered
        made = self._folder / f"{number}.bc"
        done = subprocess.run([find_clang(), "-Oz", "-w", "-c", "-emit-llvm", path, "-o", made], capture_output=True)
        return made if not done.returncode else None

    def _text(self, path: Path, options: Options) -> int:
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".o") as made:
            words = ["-Oz", "-w", "-Xclang", "-disable-llvm-passes", "-c", path, "-o", made.name]
            done = subprocess.run([find_clang(), *words, *words_of(options)], capture_output=True)
            return objects.text_size(Path(made.name).read_bytes()) if not done.returncode else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--modules", type=int, default=80)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = Modules(modules_of(corpus, options.corpus, "train", options.modules, options.seed), folder)
        print(f"{len(modules.paths)} modules of training projects")
        sets = chosen(modules, options.sets)
        show(modules, sets)
        (folder / "held-out").mkdir()
        held_out = modules_of(corpus, options.corpus, "validation", options.modules, options.seed)
        others = Modules(held_out, folder / "held-out")
        print(f"{len(others.paths)} modules of validation projects")
        show(others, sets)
    return 0


def modules_of(corpus: Corpus, folder: Path, split: Split, most: int, seed: int) -> list[Path]:
    """Modules of as many projects as there are, drawn by the seed."""
    projects = sorted({it.project for it in corpus.entries.values() if it.split == split})
    rng = random.Random(seed)
    drawn: list[list[Path]] = []
    for project in rng.sample(projects, len(projects)):
        paths = sorted(it for it in (folder / "units" / project).glob("*.bc"))
        paths = [it for it in paths if SMALLEST < it.stat().st_size < LARGEST]
        drawn.append(rng.sample(paths, len(paths)))
    deep = max(map(len, drawn))
    return [paths[turn] for turn in range(deep) for paths in drawn if turn < len(paths)][:most]


def chosen(modules: Modules, most: int) -> list[Options]:
    """Sets, the most useful one first; fewer where nothing is gained any more."""
    sets: list[Options] = []
    reached = [1.0] * len(modules.paths)
    while len(sets) < most:
        found: frozenset[str] = frozenset(sets[0]) if sets else frozenset()
        value, climbing = mean(reached, modules.ratios(found)), True
        while climbing:
            climbing = False
            for option in POOL:
                other = found ^ {option}
                result = mean(reached, modules.ratios(other))
                if result < value:
                    found, value, climbing = other, result, True
        if value >= mean(reached, reached):
            break
        reached = list(map(min, reached, modules.ratios(found)))
        sets.append(tuple(it for it in POOL if it in found))
        TARGET.write_text(json.dumps(sets, indent=1) + "\n")
        print(f"{len(sets)}: {mean(reached, reached) - 1:+.2%} {' '.join(sets[-1])}", flush=True)
    return sets


def mean(reached: Sequence[float], ratios: Sequence[float]) -> float:
    """The geometric mean of the better of two ratios."""
    return math.exp(sum(math.log(min(pair)) for pair in zip(reached, ratios)) / len(reached))


def show(modules: Modules, sets: Sequence[Options]) -> None:
    """What the first sets reach together, and each alone."""
    reached = [1.0] * len(modules.paths)
    for number, options in enumerate(sets, 1):
        ratios = modules.ratios(options)
        reached = list(map(min, reached, ratios))
        print(f"  {number} sets {mean(reached, reached) - 1:+.2%}; this one alone {mean(ratios, ratios) - 1:+.2%}")


if __name__ == "__main__":
    sys.exit(run_script(main))
