"""How small translation units become, and what that costs: one version of secondpass, or several in turns.

    python benchmarks/units.py --corpus build/corpus [--units 40] [--effort 0] [--seed 0] [--out FILE] [TREE ...]

Takes translation units of the corpus as their builds handed them to -Oz, drawn by the seed, and makes of each what
`secondpass cc` would, once with each source tree (a folder `src`; this one's where none is named) in a process of its
own. Prints what clang -Oz and each tree make of all together in bytes of text, the geometric mean of their ratios, and
seconds of processor time, which other work on the machine changes little. No unit is cut short by the clock. Results
go to FILE, if there is one, and an interrupted run goes on there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from secondpass.errors import run_script
from secondpass.files import appending, read_records

Made = dict[str, Any]
SMALLEST, LARGEST = 3_000, 300_000
"""Bytes of a unit's bitcode."""
CLANG_SECONDS = 200.0
"""What clang is said to have taken, so that no limit of time, which is a multiple of it, is reached."""


def processor_seconds() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(it.ru_utime + it.ru_stime for it in used)


def one(unit: str, level: int) -> Made | None:
    """What becomes of a unit here and now; None where clang -Oz fails on it, or it defines no function."""
    from secondpass.driver.smaller import apart, load_model, smaller
    from secondpass.errors import InputError
    from secondpass.llvm import objects
    from secondpass.llvm.toolchain import find_clang

    clang = str(find_clang())
    load_model(level)
    with tempfile.TemporaryDirectory(prefix="unit-") as name:
        folder = Path(name)
        command = [clang, "-Oz", "-c", "-w", "-x", "ir", unit, "-o", str(folder / "clang.o")]
        started = processor_seconds()
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        text = objects.text_size((folder / "clang.o").read_bytes())
        clang_seconds = processor_seconds() - started
        started = processor_seconds()
        try:
            work = partial(smaller, [clang], [], unit, "ir", "-Oz", level, folder, CLANG_SECONDS)
            made = apart(work, codegen=True)
        except InputError:
            return None
        return {
            "clang": text,
            "clang seconds": round(clang_seconds, 3),
            "text": objects.text_size(made.image),
            "seconds": round(processor_seconds() - started, 2),
            "note": made.note,
        }


def measured(tree: Path, unit: Path, level: int) -> Made | None:
    """`one` in a process that has another source tree."""
    command = [sys.executable, "-P", __file__, "--one", str(unit), "--effort", str(level)]
    environment = os.environ | {"PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if run.returncode:
        print(f"{unit}, {tree}: {run.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(run.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("trees", type=Path, nargs="*", metavar="TREE")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--units", type=int, default=40)
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(os.devnull))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.effort)))
        return
    if options.corpus is None:
        parser.error("--corpus says where the units are")
    trees = [str(it) for it in options.trees] or [str(Path(__file__).parent.parent / "src")]
    units = sorted((options.corpus / "units").glob("*/*.bc"))
    drawn = [
        it for it in random.Random(options.seed).sample(units, len(units)) if SMALLEST < it.stat().st_size < LARGEST
    ]
    drawn = drawn[: options.units]
    made = {(it["unit"], it["tree"], it["effort"]): it["made"] for it in read_records(options.out)}

    def key_of(unit: Path, tree: str) -> tuple[str, str, int]:
        return f"{unit.parent.name}/{unit.name}", tree, options.effort  # files of two packages may have one name

    with appending(options.out) as keep:
        for unit in drawn:
            for tree in random.Random(unit.name).sample(trees, len(trees)):
                key = key_of(unit, tree)
                if key not in made:
                    made[key] = measured(Path(tree), unit, options.effort)
                    keep({"unit": key[0], "tree": tree, "effort": options.effort, "made": made[key]})
    all_rows: list[list[Made]] = [[made[key_of(unit, tree)] for tree in trees] for unit in drawn]
    rows = [row for row in all_rows if all(row) and row[0]["clang"]]
    clang = sum(row[0]["clang"] for row in rows)
    seconds = sum(row[0]["clang seconds"] for row in rows)
    print(
        f"{len(rows)} units at effort {options.effort}; clang -Oz: {clang:,} bytes of text in {seconds:.1f} s from IR"
    )
    for at, tree in enumerate(trees):
        text = sum(row[at]["text"] for row in rows)
        mean = math.exp(sum(math.log(row[at]["text"] / row[at]["clang"]) for row in rows) / len(rows))
        spent = sum(row[at]["seconds"] for row in rows)
        print(f"{tree}: {text:,} ({text / clang - 1:+.2%}), geometric mean {mean - 1:+.2%}, {spent:.1f} s")


if __name__ == "__main__":
    sys.exit(run_script(main))
