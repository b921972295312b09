"""The options and attributes of code generation that ship: what makes modules of training projects smaller.

    python scripts/learn_codegen.py --corpus build/corpus [--modules 80]
    python scripts/learn_codegen.py --corpus build/corpus --attributes    # these alone; the options stay

What is learned is for the family of machines that the corpus is for (`driver.machines`): that of another one is made by
`scripts/cross_corpus.py`, and LLVM has to be one that has it (`SECONDPASS_LLVM`).

Takes modules of training projects, drawn by chance, optimised by -Oz. Finds the set of options that makes most of
them smaller, one option more or less at a time; then the order in which single options are worth a change in each
module's own set (`driver.codegen`), and prints what they reach after so many changes. Then the variations of functions'
attributes that help most with the first options in force, each function having the one that suits it, as far as they
are worth a code generation (`driver.attributes`). Writes all to `src/secondpass/driver/machines.json`. Prints all of it
again for modules of the validation projects, which nothing was chosen on. A quarter of an hour of two cores, five
minutes for attributes alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import geometric_mean

from secondpass.corpus.store import Corpus, Split
from secondpass.driver.attributes import Variation, free
from secondpass.driver.codegen import Options, changed
from secondpass.driver.machines import family
from secondpass.errors import InputError, run_script
from secondpass.llvm import objects
from secondpass.llvm.forked import emitted
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.sandbox import Sandbox

LEARNED = Path(__file__).parent.parent / "src" / "secondpass" / "driver" / "machines.json"
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
    "-outliner-benefit-threshold=4",
    "-pre-RA-sched=list-burr",
    "-pre-RA-sched=list-hybrid",
    "-enable-misched",
    "-misched=ilpmin",
    "-grow-region-complexity-budget=4",
    "-greedy-reverse-local-assignment",
    "-disable-2addr-hack=false",
    "-twoaddr-reschedule=false",
    "-disable-phi-elim-edge-splitting",
    "-phi-elim-split-all-critical-edges",
    "-use-mbpi=false",
    "-disable-tail-duplicate",
    "-disable-early-taildup",
    "-tail-merge-size=2",
    "-machine-sink-split-probability-threshold=0",
    "-disable-postra-machine-sink",
    "-enable-shrink-wrap=false",
    "-x86-cmov-converter=false",
    "-max-store-memset=2",
    "-combiner-global-alias-analysis",
    "-combiner-topological-sorting",
    "-branch-folder-reorder-blocks=false",
    "-tail-dup-placement=false",
    "-tail-merge-size=4",
    "-outliner-benefit-threshold=8",
    "-misched=ilpmax",
    "-misched-prera-direction=topdown",
    "-disable-postra-machine-licm",
    "-schedmodel=false",
    "-min-jump-table-entries=8",
    "-arm-prera-ldst-opt-reorder-limit=64",
    "-disable-ifcvt-triangle-false",
    "-ifcvt-limit=0",
    "-enable-shrink-wrap-region-split=false",
    "-disable-preheader-prot",
    "-jump-is-expensive",
)
"""What made some of fifty modules smaller, alone or in the best set for it, of the 1,200 switches and the settings of
clang's back end; without those that change what an ABI promises, are marked as unfinished, or do nothing but debug, and
`-sink-insts-to-avoid-spills`, with which LLVM 19 fails on ARM. The last seven: alone, on sixteen modules for Thumb;
x86's were learned without these."""
X86_ALONE = {"-consthoist-gep"}
"""What is learned for no other machine: on ARM a program ends with a bus error by it (docs/miscompilations.md)."""
PROCESSORS = "atom", "core2", "haswell", "i386", "silvermont", "znver2"
"""For whose sake instructions are chosen and put in order: one of each kind of those that differ at -Oz. All that is
chosen is of x86-64's first version."""
VARIATIONS = [
    Variation(frame, processor, without)
    for without in ((), ("minsize",), ("minsize", "optsize"))
    for frame in (False, True)
    for processor in ("", *PROCESSORS)
][1:]
"""The first is no change."""
WORTH = 0.0004
"""What a variation has to take off the text, as a share: a change of options takes as much when twenty are done."""
SMALLEST, LARGEST = 20_000, 120_000
"""Bytes of unoptimised bitcode."""
SHOWN = 4, 8, 16, 24, 32
"""Changes of which is said what they reach."""
_SECONDS = 30
"""After which options do not suit a module."""


class Modules:
    """Modules, and the text of what is generated from each with options.

    Args:
        paths: unoptimised bitcode.
        folder: for what is made.
    """

    def __init__(self, paths: Iterable[Path], folder: Path) -> None:
        self._known: dict[tuple[Path, frozenset[str]], int] = {}
        oz = load().oz_pipeline  # once, for all forks
        with Sandbox() as sandbox:
            jobs = (Job(it.read_bytes(), (oz,), str(number), keep=True) for number, it in enumerate(paths))
            made = {int(job.name): outcome.bitcode for job, (outcome,) in sandbox.run(jobs) if outcome.bitcode}
        self.paths = [folder / f"{number}.bc" for number in sorted(made)]
        for number, path in zip(sorted(made), self.paths):
            path.write_bytes(made[number])
        self._pool = multiprocessing.get_context("fork").Pool()
        texts = self.texts_with(())
        self.paths = [path for path, text in zip(self.paths, texts) if text]
        self._plain = list(filter(None, texts))
        self.family = family_of(self.paths)
        self.candidates = tuple(it for it in POOL if self.family == "x86" or it not in X86_ALONE)

    def ratio(self, texts: Iterable[int]) -> float:
        """The geometric mean of texts against those with no options."""
        return geometric_mean(text / plain for text, plain in zip(texts, self._plain))

    def texts_with(self, options: Options) -> list[int]:
        """Each module's text with the same options; 0 where LLVM does not take them."""
        return self.texts([options] * len(self.paths))

    def texts(self, options: Sequence[Options]) -> list[int]:
        """Each module's text with options of its own; 0 where LLVM does not take them."""
        asked = [(path, frozenset(it)) for path, it in zip(self.paths, options)]
        new = sorted({it for it in asked if it not in self._known}, key=str)
        self._known.update(zip(new, self._pool.imap(text_of, new)))
        return [self._known[it] for it in asked]

    def varied(self, options: Options, variations: Sequence[Variation]) -> list[Varied]:
        """Each module with options, and with each variation of all functions."""
        made = self._pool.map(partial(varied, options=options, variations=variations), self.paths)
        return [it for it in made if it.text]


def family_of(paths: Iterable[Path]) -> str:
    """The family of machines that modules are for.

    Raises:
        InputError: they are for several, for one that `driver.machines` has no name for, or there are none.
    """
    triples: set[str] = set()
    for path in paths:
        with Module.parse(path.read_bytes()) as module:
            triples.add(module.triple)
    families = set(map(family, triples))
    (found,) = families if len(families) == 1 else (None,)
    if found is None:
        raise InputError(
            f"modules for {', '.join(sorted(triples)) or 'no machine'}: options are learned for one of the families "
            "that driver/machines.py names; give the machine a name there, or a corpus for one family"
        )
    return found


def text_of(asked: tuple[Path, frozenset[str]]) -> int:
    """The text of a module with options, 0 where LLVM does not take them."""
    path, options = asked
    with Module.parse(path.read_bytes()) as module:
        image = emitted(module, sorted(options), _SECONDS)
    return objects.text_size(image) if image else 0


@dataclass(frozen=True, slots=True)
class Varied:
    """A module's text, and what each function takes of it: with its own attributes first, then with each variation."""

    text: int
    functions: list[Mapping[str, int]]

    def text_with(self, some: Iterable[int]) -> int:
        """The text where each function has what suits it of its own attributes and some variations, by number."""
        own, *others = self.functions
        least = {name: min([size, *(others[it].get(name, size) for it in some)]) for name, size in own.items()}
        return self.text - sum(own.values()) + sum(least.values())


def varied(path: Path, options: Options, variations: Sequence[Variation]) -> Varied:
    """A module with options and with variations; without text where LLVM does not take the options."""
    with Module.parse(path.read_bytes()) as module:
        names = free(module)  # no second names of functions
        images = [emitted(module, options, _SECONDS)]
        for it in variations:
            with module.clone() as changed:
                it.change(changed, names)
                images.append(emitted(changed, options, _SECONDS))
    text = objects.text_size(images[0]) if images[0] else 0
    sizes = [objects.text_sizes(it) if it else {} for it in images]
    return Varied(text, [{name: size for name, size in it.items() if name in names} for it in sizes])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--modules", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attributes", action="store_true", help="learn attributes alone")
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = Modules(modules_of(corpus, options.corpus, "train", options.modules, options.seed), folder)
        print(f"{len(modules.paths)} modules of training projects")
        machine, ships = modules.family, json.loads(LEARNED.read_text())
        if options.attributes:
            first, order = ships[machine]["first"], ships[machine]["changes"]
        else:
            first = chosen(modules)
            order = ordered(modules, first)
            show(modules, first, order)
        suiting = helpful(modules, first)
        ships[machine] = {"first": first, "changes": order, "attributes": [asdict(it) for it in suiting]}
        LEARNED.write_text(json.dumps(ships, indent=1) + "\n")
        (folder / "held-out").mkdir()
        held_out = modules_of(corpus, options.corpus, "validation", options.modules, options.seed)
        others = Modules(held_out, folder / "held-out")
        print(f"{len(others.paths)} modules of validation projects")
        if not options.attributes:
            show(others, first, order)
        show_variations(others.varied(first, suiting), suiting, range(len(suiting)))
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


def chosen(modules: Modules) -> Options:
    """The options that make the modules smallest together, without the machine outliner (`driver.codegen.usual`)."""
    found: Options = ()
    value, climbing = 1.0, True
    while climbing:
        climbing = False
        for option in (it for it in modules.candidates if "outline" not in it):
            other = changed(found, option)
            texts = modules.texts_with(other)
            if all(texts) and (ratio := modules.ratio(texts)) < value:
                found, value, climbing = other, ratio, True
        print(f"{value - 1:+.2%} {' '.join(found)}", flush=True)
    return found


def ordered(modules: Modules, first: Options) -> list[str]:
    """Single options by what changing them takes off the modules' own best options, behind the changes before."""
    own = with_first(modules, first)
    left = dict.fromkeys(modules.candidates, 0.0)
    order: list[str] = []
    while left:
        option = min(left, key=left.__getitem__)
        made = stepped(modules, own, option)
        left[option] = modules.ratio(it.text for it in made) / modules.ratio(it.text for it in own)
        if left[option] > min(left.values()):
            continue  # another one may be worth more by now; what a change takes off seldom grows
        if left.pop(option) < 1:
            order.append(option)
            own = made
    return order


def helpful(modules: Modules, first: Options) -> list[Variation]:
    """The variations that are worth a code generation, each by what it takes off behind those before."""
    variations = [it for it in VARIATIONS if modules.family == "x86" or not it.processor]
    made = modules.varied(first, variations)
    found: list[int] = []
    while len(found) < len(variations):
        best = min(range(len(variations)), key=lambda it: ratio_of(made, [*found, it]))
        if ratio_of(made, [*found, best]) > ratio_of(made, found) * (1 - WORTH):
            break
        found.append(best)
    show_variations(made, variations, found)
    return [variations[it] for it in found]


def ratio_of(made: Sequence[Varied], some: Sequence[int]) -> float:
    """The geometric mean of texts with some variations against those with none."""
    return geometric_mean(it.text_with(some) / it.text for it in made)


def show_variations(made: Sequence[Varied], variations: Sequence[Variation], order: Sequence[int]) -> None:
    """What so many variations reach, in an order."""
    for done, number in enumerate(order, 1):
        print(f"  {ratio_of(made, order[:done]) - 1:+.2%} {variations[number]}", flush=True)


@dataclass(frozen=True, slots=True)
class Own:
    """A module's own best options so far, and its text with them."""

    options: Options
    text: int


def with_first(modules: Modules, first: Options) -> list[Own]:
    """Each module with the options that suit most, or with none if it is smaller then."""
    rows = zip(modules.texts_with(()), modules.texts_with(first))
    return [Own(first, text) if 0 < text < plain else Own((), plain) for plain, text in rows]


def stepped(modules: Modules, own: Sequence[Own], option: str) -> list[Own]:
    """The modules with one option changed, those that are smaller then."""
    others = [changed(it.options, option) for it in own]
    made = map(Own, others, modules.texts(others))
    return [new if 0 < new.text < old.text else old for old, new in zip(own, made)]


def show(modules: Modules, first: Options, order: Sequence[str]) -> None:
    """What so many changes reach."""
    own = with_first(modules, first)
    for number, option in enumerate(["", *order, *order]):
        own = stepped(modules, own, option) if number else own
        if number in (0, *SHOWN) or number % len(order) == 0:  # all once, and all twice
            print(f"  {number} changes {modules.ratio(it.text for it in own) - 1:+.2%}", flush=True)


if __name__ == "__main__":
    sys.exit(run_script(main))
