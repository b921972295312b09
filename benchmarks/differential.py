"""Do the passes keep what programs mean? Csmith programs, built at -Oz and through pass lists, must print the same.

    python benchmarks/differential.py --programs 500 --out build/differential              # what users get
    python benchmarks/differential.py --programs 20 --lists 100 --each --out build/differential
    python benchmarks/differential.py --programs 300 --codegen --out build/differential   # -Oz with options
    export SECONDPASS_LLVM=/usr/lib/llvm-19 QEMU_LD_PREFIX=/usr/arm-linux-gnueabihf        # on another machine, by qemu
    python benchmarks/differential.py --codegen --machine="--target=arm-linux-gnueabihf -mthumb" --out build/thumb

Every program is compiled by the bundled clang at -Oz, and by us: as `optimize` makes it, with sampled answers
of the model and with lists drawn from the coreset and the winners of the tuner, each function with its own; and
through lists for the whole program: some of those, some random, and with `--each` every word of the vocabulary
on the unoptimised code, after `sroa`, before and after -Oz. What `optimize` makes is built with the
options of code generation that `secondpass cc` begins with, and with others that it may come to, each function with
attributes drawn from those it may get. Every second program has debug information. Programs and lists come from the
seed. Each difference is written down with its program, list and the shortest list that still shows it.
Needs Debian's `csmith`, `libcsmith-dev` and a linker; for another machine what `benchmarks/programs.py` needs for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path

from secondpass.driver.attributes import free, variations
from secondpass.driver.codegen import Options, changed, words_of
from secondpass.driver.machines import learned_for
from secondpass.engines.onnx import OnnxEngine
from secondpass.errors import run_script
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.toolchain import find_clang
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.optimize import optimize
from secondpass.prompt import Objective
from secondpass.strategies.sampling import Sample

OZ = "default<O2>"
WORDS = [entry.text for entry in VOCABULARY]
KNOWLEDGE = Path(__file__).parent.parent / "src" / "secondpass" / "tuner" / "knowledge_data"
RUN_SECONDS, BUILD_SECONDS = 5, 120
_SETS = 7
"""Of changed options of code generation, a program."""
Build = tuple[bytes, Options]
"""A module, and the options of code generation that it is built with."""
CSMITH = "csmith --max-funcs 5 --max-block-depth 3 --max-block-size 4 --no-volatiles".split()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--programs", type=int, default=50)
    parser.add_argument("--lists", type=int, default=10, help="random lists a program")
    parser.add_argument("--winners", type=int, default=10, help="lists a program from the coreset and the winners")
    parser.add_argument("--asked", type=int, default=1, metavar="N", help="the model is asked for every Nth program")
    parser.add_argument("--each", action="store_true", help="every word of the vocabulary too")
    parser.add_argument("--codegen", action="store_true", help="no lists: -Oz's code with options alone")
    parser.add_argument("--machine", type=str.split, default=[], metavar="FLAGS", help="for clang; default: this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    programs = usable_programs(options.out, options.seed, options.programs, options.machine)
    if options.codegen:
        return 1 if differing_codegen(programs) else 0
    ran, differences, done = 0, 0, 0
    engine = OnnxEngine.load(words=load().words, threads=1)
    known = {it: winners(it) for it in Objective}
    with Sandbox() as sandbox, ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, program in programs:
            rng = random.Random(program.seed)
            objective = rng.choice(list(Objective))
            ours = optimize(
                program.module,
                engine if number % options.asked == 0 else None,
                Sample(3, engine.temperature, program.seed),
                sandbox,
                objective=objective,
                coreset=rng.sample(known[objective], options.winners),
            )
            builds = [(ours.bitcode, ()), *codegen_builds(ours.bitcode, rng)]
            ran += len(builds)
            for codegen in differing(program, builds, pool):
                differences += 1
                lists = [(it.name, str(it.passes)) for it in ours.functions]
                print(f"program {program.seed}, as a whole, {codegen}: {lists}", flush=True)
            drawn = rng.sample(known[objective], options.winners)
            lists = [*drawn, *lists_for(rng, options.lists), *(every_word() if options.each else ())]
            job = Job(program.bitcode, tuple(map(str, lists)), keep=True)
            outcomes = sandbox.compile(job)
            built = [(passes, it.bitcode) for passes, it in zip(lists, outcomes) if it.bitcode is not None]
            distinct = {bitcode: passes for passes, bitcode in reversed(built)}
            agreements = pool.map(program.agrees, distinct)
            wrong = [passes for passes, agrees in zip(distinct.values(), agreements) if not agrees]
            ran += len(distinct)
            for passes in shortest_causes(sandbox, program, wrong):
                differences += 1
                print(f"program {program.seed}: {passes}", flush=True)
            done += 1
            print(f"{done} programs, {ran} distinct results, {differences} differ", flush=True)
    return 1 if differences else 0


def differing_codegen(programs: Iterable[tuple[int, Program]]) -> int:
    """How many builds of -Oz's code with a set of options print something else."""
    ran, differences, done = 0, 0, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _, program in programs:
            with Module.parse(program.bitcode) as module:
                module.run(OZ)
                bitcode = module.to_bitcode()
            builds = codegen_builds(bitcode, random.Random(program.seed))
            ran += len(builds)
            for codegen in differing(program, builds, pool):
                differences += 1
                print(f"program {program.seed}, -Oz with {codegen}", flush=True)
            done += 1
            print(f"{done} programs, {ran} builds, {differences} differ", flush=True)
    return differences


def usable_programs(folder: Path, seed: int, count: int, machine: Sequence[str]) -> Iterator[tuple[int, Program]]:
    """Programs by number, without those that say nothing."""
    for number in range(count):
        program = Program(folder, seed * 1_000_000 + number, machine)
        if program.usable:
            yield number, program
        else:
            print(f"program {program.seed} does not end, or prints nothing: left out", flush=True)


def codegen_builds(bitcode: bytes, rng: random.Random) -> list[Build]:
    """A module with the options that a build begins with, and with some that it may come to from there, its functions
    with attributes that they may get.
    """
    with Module.parse(bitcode) as module:
        learned = learned_for(module.triple)
    drawn = (rng.sample(learned.changes, rng.randint(1, len(learned.changes) // 2)) for _ in range(_SETS))
    return [(bitcode, learned.first), *((varied(bitcode, rng), reduce(changed, it, learned.first)) for it in drawn)]


def varied(bitcode: bytes, rng: random.Random) -> bytes:
    """A module whose functions have one variation of their attributes each, or none."""
    with Module.parse(bitcode) as module:
        for name in sorted(free(module)):
            if variation := rng.choice([None, *variations(module.triple)]):
                variation.change(module, {name})
        return module.to_bitcode()


def differing(program: Program, builds: Sequence[Build], pool: ThreadPoolExecutor) -> list[str]:
    """Those of which a program prints something else: their options, and the file in which the module is kept."""
    agreements = pool.map(lambda it: program.agrees(*it), builds)
    return [
        f"{' '.join(options)} ({program.keep(bitcode)})"
        for (bitcode, options), agrees in zip(builds, agreements)
        if not agrees
    ]


def winners(objective: Objective) -> list[PassList]:
    """The coreset and what else won on functions."""
    knowledge = json.loads((KNOWLEDGE / f"{objective}.json").read_text())
    return [PassList.of(*words.split()) for words in dict.fromkeys((*knowledge["coreset"], *knowledge["winners"]))]


class Program:
    """One Csmith program: its source, unoptimised bitcode and what it prints at -Oz.

    Args:
        folder: where its files are.
        seed: Csmith's.
        machine: clang's flags for another machine than this one.
    """

    def __init__(self, folder: Path, seed: int, machine: Sequence[str]) -> None:
        self.seed = seed
        self._folder, self._machine = folder, machine
        self._source = folder / f"{seed}.c"
        made = subprocess.run([*CSMITH, "--seed", str(seed)], capture_output=True, check=True, cwd=folder)
        self._source.write_bytes(made.stdout)
        flags = [*machine, "-Oz", "-w", "-I/usr/include/csmith", *(["-g"] if seed % 2 else [])]
        self.module = self._source.with_suffix(".bc")
        compile_only = ["-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c"]
        subprocess.run([find_clang(), *flags, *compile_only, self._source, "-o", self.module], check=True)
        self.bitcode = self.module.read_bytes()
        self._expected, unoptimised = (self._output(level, *flags) for level in ("-Oz", "-O0"))
        self.usable = bool(self._expected) and unoptimised is not None
        """Some of Csmith's programs loop for ever, or print nothing at -Oz because they would: those say nothing."""

    def _output(self, level: str, *flags: str) -> bytes | None:
        """What clang's own build prints."""
        built = self._source.with_suffix(level.replace("-", "."))
        subprocess.run([find_clang(), *flags, level, self._source, "-o", built], check=True)
        return output_of(built)

    def agrees(self, bitcode: bytes, codegen: Options = ()) -> bool:
        """Whether the program built from this bitcode prints what the -Oz build prints."""
        stem = self._folder / f"{self.seed}-{hash((bitcode, codegen)) & 0xFFFFFFFFFFFF:x}"
        module, program = stem.with_suffix(".bc"), stem.with_suffix(".exe")
        module.write_bytes(bitcode)
        try:
            flags = [*self._machine, "-Oz", "-w", "-Xclang", "-disable-llvm-passes", *words_of(codegen)]
            build = [find_clang(), *flags, module, "-o", program]
            built = subprocess.run(build, capture_output=True, timeout=BUILD_SECONDS)
            return built.returncode == 0 and output_of(program) == self._expected
        except subprocess.TimeoutExpired:
            return False
        finally:
            module.unlink()
            program.unlink(missing_ok=True)

    def keep(self, bitcode: bytes) -> Path:
        """Write a module down, to be looked at."""
        path = self._folder / f"{self.seed}-{hashlib.sha256(bitcode).hexdigest()[:8]}.bc"
        path.write_bytes(bitcode)
        return path


def output_of(program: Path) -> bytes | None:
    try:
        return subprocess.run([program], capture_output=True, timeout=RUN_SECONDS).stdout
    except subprocess.TimeoutExpired:
        return None


def lists_for(rng: random.Random, count: int) -> Iterator[PassList]:
    for _ in range(count):
        yield PassList.of(*rng.choices(WORDS, k=rng.randint(2, 16)))


def every_word() -> Iterator[PassList]:
    for word in WORDS:
        for words in ([word], ["sroa", word], [word, OZ], [OZ, word]):
            yield PassList.of(*words)


def shortest_causes(sandbox: Sandbox, program: Program, wrong: list[PassList]) -> set[PassList]:
    """For each list that changed the output, the shortest sublist found that still does."""
    found = set()
    for passes in wrong:
        while len(passes) > 1:
            shorter = [passes.without(index) for index in range(len(passes))]
            outcomes = sandbox.compile(Job(program.bitcode, tuple(map(str, shorter)), keep=True))
            still = (it for it, out in zip(shorter, outcomes) if out.bitcode and not program.agrees(out.bitcode))
            following = next(still, None)
            if following is None:
                break
            passes = following
        found.add(passes)
    return found


if __name__ == "__main__":
    sys.exit(run_script(main))
