"""How long a user waits: `secondpass optimize` on one function, start-up and model loading included.

    python benchmarks/latency.py [--function compress] [--rounds 7]

Takes a function of `examples/codec.c` of about 200 lines of IR, writes it to a file of its own and runs the
command on it with one greedy answer, with and without feedback, with ten samples and with a portfolio, in turns. Prints
the median and range of the wall time, and where it goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from secondpass.errors import run_script
from secondpass.frontend import read_ir
from secondpass.llvm.module import Module

CODEC = Path(__file__).parents[1] / "examples" / "codec.c"
WAYS = {
    "one answer": ["--strategy", "single"],
    "one answer, second try": ["--strategy", "feedback"],
    "ten samples": ["--strategy", "sample", "--samples", "10"],
    "portfolio of ten": ["--strategy", "portfolio", "--samples", "10"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--function", default="compress")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "function.ll"
        with Module.parse(read_ir(CODEC)[0]) as module, module.extract(options.function) as part:
            path.write_text(part.to_text())
            lines = len([line for line in path.read_text().splitlines() if line.startswith("  ")])
            print(f"{options.function}: {part.instruction_count} instructions, {lines} lines of IR")
        walls: dict[str, list[float]] = {way: [] for way in WAYS}
        stages: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way, flags in WAYS.items():
                started = time.perf_counter()
                command = [Path(sys.executable).with_name("secondpass"), "optimize", path, *flags, "--json"]
                run = subprocess.run(command, capture_output=True, check=True)
                walls[way].append(time.perf_counter() - started)
                stages[way].append(json.loads(run.stdout)["seconds"])
    for way, seconds in walls.items():
        parts = {name: statistics.median(it[name] for it in stages[way]) for name in stages[way][0]}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in parts.items())
        print(f"{way}: median {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}); {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
