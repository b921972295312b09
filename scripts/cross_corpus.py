"""A corpus of translation units for another machine: Debian packages, cross-compiled by a clang that has it.

    export SECONDPASS_LLVM=/usr/lib/llvm-19
    python scripts/cross_corpus.py --out build/thumb                                    # for Thumb-2
    python scripts/cross_corpus.py --out build/riscv --target riscv64-linux-gnu --flags=
    python scripts/learn_codegen.py --corpus build/thumb/corpus

Each package is configured and built for the machine under Bear, as far as that goes, and its commands become units by
`secondpass corpus compdb`, in the split that the recipe has for it. Packages are those that ask for no library but
C's and C++'s. What is done is not done again. Needs `apt-get install clang-19 autoconf automake libtool bear cmake
dpkg-dev make g++-12-arm-linux-gnueabihf` (or the other machine's), and deb-src. Five minutes of two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from secondpass.corpus.debian import PackageError, fetch_source, read_recipe
from secondpass.errors import run_script
from secondpass.llvm.toolchain import find_clang

RECIPE = Path(__file__).parent.parent / "data" / "corpus.txt"
PACKAGES = (
    *("bc", "bzip2", "expat", "giflib", "gperf", "hiredis", "jbigkit", "libogg", "libtommath", "libyaml", "lz4"),
    *("mawk", "sed", "speex", "tinyxml", "tre", "xz-utils"),
)
FOLDERS = {"expat": "expat"}
"""The folder of a source from which it is built, where that is not its outermost one."""
BUILD_MINUTES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", default="arm-linux-gnueabihf", help="triple of the machine, as Debian names it")
    parser.add_argument("--flags", default="-mthumb", help="for the compiler")
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=PACKAGES, metavar="NAME")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    splits = {it.name: it.split or "train" for it in read_recipe(RECIPE)}
    compiler = [str(find_clang()), f"--target={options.target}", *options.flags.split()]
    failed = 0
    for name in options.packages:
        if (out / "corpus" / "units" / name).exists():
            continue
        try:
            source = fetch_source(name, out / "sources" / name)
        except PackageError as error:
            print(error, flush=True)
            failed += 1
            continue
        database = built(source / FOLDERS.get(name, "."), compiler, options.target)
        command = [sys.executable, "-m", "secondpass", "corpus", "compdb", database, "--out", out / "corpus"]
        done = subprocess.run([*command, "--project", name, "--split", splits[name]], capture_output=True, text=True)
        said = (done.stdout if not done.returncode else done.stderr).strip().splitlines()
        print(f"{name}: {said[-1] if said else 'failed'}", flush=True)
        failed += done.returncode != 0
    return 1 if failed else 0


def built(source: Path, compiler: list[str], target: str) -> Path:
    """The compile database of a build for another machine, which may fail on the way; each file once."""
    names = {"CC": compiler, "CXX": [f"{compiler[0]}++", *compiler[1:]]}
    variables = {name: " ".join(words) for name, words in names.items()} | {"CFLAGS": "-Oz", "CXXFLAGS": "-Oz"}
    environment = os.environ | variables
    make = ["make", "-k", "-j2", "MAKEINFO=true"]
    configure = ["true"]
    if (source / "configure.ac").exists() and not (source / "configure").exists():
        subprocess.run(["autoreconf", "-i"], cwd=source, capture_output=True)
    if (source / "configure").exists():
        configure = ["sh", "./configure", f"--host={target}", "--disable-dependency-tracking"]
    elif (source / "CMakeLists.txt").exists():
        configure = ["cmake", "-S", ".", "-B", "out", "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
        make += ["-C", "out"]
    else:
        make += (f"{name}={value}" for name, value in variables.items())
    subprocess.run(configure, cwd=source, env=environment, capture_output=True)
    database = source / "compile_commands.json"
    command = ["bear", "--output", database, "--", "timeout", f"{BUILD_MINUTES}m", *make]
    subprocess.run(command, cwd=source, env=environment, capture_output=True)
    entries = json.loads(database.read_text()) if database.exists() else []
    # What the build compiles for its own machine is not wanted, nor what it compiles for a shared library too.
    wanted = [it for it in entries if compiler[1] in it["arguments"]]
    wanted.sort(key=lambda it: "-fPIC" not in it["arguments"])
    database.write_text(json.dumps(list({it["file"]: it for it in wanted}.values())))
    return database


if __name__ == "__main__":
    sys.exit(run_script(main))
