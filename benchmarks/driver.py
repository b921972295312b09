"""What a command of a build costs: with a server and without, from the cache and not, beside clang's own.

    python benchmarks/driver.py [--rounds 10] [SOURCE]

Compiles a C file (one small function where none is given) with `secondpass-cc -Oz -c` at effort 0, the variants
alternating, and prints medians with their spread in milliseconds; and a trial as `configure` makes hundreds of, which
is clang's alone. On an idle machine. What is measured has its bytecode, as where pip installs it.
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import secondpass
from secondpass.errors import run_script
from secondpass.llvm.toolchain import find_clang

COMPILER = Path(sys.executable).parent / "secondpass-cc"
SMALL = "int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += p[i] * 3; return s; }\n"
WARM = 3
"""Commands from the cache after each that is not."""


def milliseconds(command: Sequence[str | Path], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, env=environment)
    return 1000 * (time.perf_counter() - started)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the server does not start")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    compileall.compile_dir(Path(secondpass.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        folder = Path(name)
        source = options.source or folder / "small.c"
        if options.source is None:
            source.write_text(SMALL)
        words = ["-Oz", "-c", source, "-o", folder / "made.o"]
        shutil.copy(source, folder / "conftest.c")
        trial = ["-Oz", "-c", folder / "conftest.c", "-o", folder / "conftest.o"]
        cache = folder / "cache"
        environment = {
            **os.environ,
            "SECONDPASS_EFFORT": "0",
            "SECONDPASS_CACHE_DIR": str(cache),
            "XDG_RUNTIME_DIR": str(folder),
        }
        alone, served = environment | {"SECONDPASS_SERVER": "0"}, environment | {"SECONDPASS_SERVER": "60"}
        milliseconds([COMPILER, *words], served)
        wait_for(lambda: list(folder.glob("secondpass/*.socket")))
        times: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            for kind, variables in (("alone", alone), ("served", served)):
                shutil.rmtree(cache)
                times[f"{kind}, compiled"].append(milliseconds([COMPILER, *words], variables))
                for _ in range(WARM):
                    times[f"{kind}, from the cache"].append(milliseconds([COMPILER, *words], variables))
            for _ in range(WARM):
                times["clang -Oz"].append(milliseconds([find_clang(), *words], environment))
            for kind, command, variables in (
                ("alone, a trial", COMPILER, alone),
                ("served, a trial", COMPILER, served),
                ("clang -Oz, a trial", find_clang(), environment),
            ):
                times[kind].append(milliseconds([command, *trial], variables))
    for kind, values in times.items():
        print(f"{kind:24} {statistics.median(values):6.0f} ({min(values):.0f} to {max(values):.0f})")


if __name__ == "__main__":
    sys.exit(run_script(main))
