"""What smaller code costs in speed: bzip2, as `benchmarks/programs.py` built it, on a part of libLLVM.

    python benchmarks/programs.py --lists --out build/programs --programs bzip2
    python benchmarks/speed.py --programs build/programs [--rounds 4]

Compresses and decompresses 25 MB with every build of bzip2 for this machine, alternately; prints medians with their
spread, in seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from secondpass.errors import InputError, run_script
from secondpass.llvm.toolchain import find_toolchain

BYTES = 25_000_000
MACHINE = slice(18, 20)
"""Where an ELF file says what machine it is for."""


def seconds(build: Path, source: Path, target: Path, *words: str) -> float:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(build)}
    with target.open("wb") as sink:
        started = time.perf_counter()
        subprocess.run([build / "bzip2", *words, "-c", source], env=environment, stdout=sink, check=True)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--programs", type=Path, required=True, help="the folder of benchmarks/programs.py")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    built = sorted(options.programs.absolute().glob("bzip2-*/bzip2"))
    here = Path(sys.executable).read_bytes()[MACHINE]
    builds = [it.parent for it in built if it.read_bytes()[MACHINE] == here]
    if not builds:
        raise InputError(
            f"{options.programs}: no build of bzip2 for this machine there; benchmarks/programs.py makes them"
        )
    times: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        data, packed, unpacked = (Path(name, it) for it in ("data", "packed", "unpacked"))
        with find_toolchain().library.open("rb") as library:
            data.write_bytes(library.read(BYTES))
        for _ in range(options.rounds):
            for build in builds:
                times[f"{build.name}, compressing"].append(seconds(build, data, packed, "-k"))
                times[f"{build.name}, decompressing"].append(seconds(build, packed, unpacked, "-d"))
                assert unpacked.read_bytes() == data.read_bytes()
    for kind, values in times.items():
        print(f"{kind:55} {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    sys.exit(run_script(main))
