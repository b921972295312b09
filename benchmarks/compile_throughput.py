"""How fast lists are compiled: the sandbox against one `opt` process a list, alternated in one run.

    python benchmarks/compile_throughput.py [FILES...]

Prints lists a second of both, their ratio with its spread over the rounds, and the share of the
workers' wall time spent inside LLVM. Functions come from `examples/` unless bitcode files are named;
lists are random ones of the vocabulary. `opt` is the one of the bundled LLVM (`secondpass[dev]`).
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from secondpass.errors import run_script
from secondpass.frontend import read_ir
from secondpass.llvm.jobs import Job
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.toolchain import find_clang
from secondpass.llvm.vocabulary import VOCABULARY

WORKERS = 2
ROUNDS = 5
LISTS_A_FUNCTION = 100
OPT_RUNS = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    files = options.files or sorted(Path(__file__).parents[1].glob("examples/**/*.c"))
    rng = random.Random(0)
    modules = [bitcode for path in files for bitcode in functions(path)]
    rng.shuffle(modules)
    modules = modules[:80]
    jobs = [Job(bitcode, tuple(random_list(rng) for _ in range(LISTS_A_FUNCTION))) for bitcode in modules]
    opt = find_clang().with_name("opt")
    ours, theirs, inside = [], [], []
    with Sandbox(WORKERS) as sandbox, tempfile.TemporaryDirectory() as folder:
        list(sandbox.run(jobs[:4]))  # the workers are up
        for number in range(ROUNDS):
            rate, share = sandbox_rate(sandbox, jobs)
            ours.append(rate)
            inside.append(share)
            theirs.append(opt_rate(opt, jobs, rng, Path(folder)))
            print(f"round {number + 1}: sandbox {rate:,.0f}/s, {share:.1%} inside LLVM; opt {theirs[-1]:,.0f}/s")
    ratios = [mine / other for mine, other in zip(ours, theirs)]
    print(f"{len(modules)} functions, {LISTS_A_FUNCTION} lists each, {WORKERS} workers")
    print(f"sandbox: median {statistics.median(ours):,.0f} lists/s ({min(ours):,.0f} to {max(ours):,.0f})")
    print(f"opt:     median {statistics.median(theirs):,.0f} lists/s ({min(theirs):,.0f} to {max(theirs):,.0f})")
    print(f"ratio:   median {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    print(f"inside LLVM: median {statistics.median(inside):.1%} ({min(inside):.1%} to {max(inside):.1%})")
    return 0


def functions(path: Path) -> list[bytes]:
    with Module.parse(read_ir(path)[0], str(path)) as module:
        return [part.to_bitcode() for _, part in module.split()]


def random_list(rng: random.Random) -> str:
    words = [entry.text for entry in VOCABULARY]
    return str(PassList.of(*rng.choices(words, k=rng.randint(1, 12))))


def sandbox_rate(sandbox: Sandbox, jobs: list[Job]) -> tuple[float, float]:
    """Lists a second, and the share of the workers' time that LLVM had."""
    started = time.perf_counter()
    outcomes = [outcome for _, part in sandbox.run(jobs) for outcome in part]
    wall = time.perf_counter() - started
    return len(outcomes) / wall, sum(outcome.seconds for outcome in outcomes) / (WORKERS * wall)


def opt_rate(opt: Path, jobs: list[Job], rng: random.Random, folder: Path) -> float:
    """Lists a second with a process each, as many at a time as the sandbox has workers."""
    commands = []
    for number in range(OPT_RUNS):
        job = rng.choice(jobs)
        module = folder / f"{number}.bc"
        module.write_bytes(job.module)
        commands.append([opt, f"-passes={rng.choice(job.lists)}", module, "-o", folder / f"{number}.out.bc"])
    started = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda command: subprocess.run(command, capture_output=True, check=False), commands))
    return OPT_RUNS / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(run_script(main))
