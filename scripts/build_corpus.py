"""Stage 1: real C programs as unoptimised bitcode, one file a translation unit.

Each Debian source package is fetched, its build dependencies are installed, and it is built the way
Debian builds it, with Bear writing down every compiler command. Then the bundled clang compiles the
same files with the same flags, optimisation, debugging and dependency output aside, to IR that no
pass has touched:

    sudo python scripts/build_corpus.py --out build/corpus

Needs root, `apt` and the packages `bear` and `dpkg-dev`. A package that is already done is skipped,
so an interrupted run can simply be started again. Nothing it writes belongs in the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from secondpass.llvm.toolchain import find_clang

# Programs and libraries of many kinds: compression, text, numbers, images, parsers, tools.
PACKAGES = (
    # held out by `scripts/extract_functions.py`: for the final measurement, and for validation
    "zlib lua5.4 jansson less cjson lz4 sed "
    # training
    "dash bzip2 libpng1.6 expat grep mawk bc libyaml libonig giflib libarchive libxml2"
).split()

# apt and dpkg allow one of themselves at a time.
APT = Lock()

# gcc flags that do not change what the source means, with a following argument or without.
DROP_WITH_VALUE = {"-o", "-MF", "-MT", "-MQ", "-Xlinker", "-L", "-l", "-z"}
DROP = re.compile(
    r"-(c|S|E|O\w*|g[\w.+-]*|M[DMPG]*|pipe|W.*|l.*|L.*|flto.*|ffat-lto-objects|fsanitize.*"
    r"|ffile-prefix-map.*|fdebug-prefix-map.*|fmacro-prefix-map.*|fdiagnostics.*|shared|static"
    r"|rdynamic|pg|fprofile.*|pedantic.*|save-temps.*)$"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # configure scripts use one core each
        reports = list(pool.map(lambda package: report_of(package, out), options.packages))
    return 1 if any("FAILED" in report for report in reports) else 0


def report_of(package: str, out: Path) -> str:
    """`corpus_of` with its failure as a line: one package that does not build is not the end."""
    try:
        report = corpus_of(package, out)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        report = f"{package}: FAILED, {error}"
    print(report, flush=True)
    return report


def corpus_of(package: str, out: Path) -> str:
    """Build `package` and write `out/package/*.bc`; the line it returns says how it went."""
    target = out / package
    if (target / "units.json").exists():
        return f"{package}: already done"
    database = out / f"{package}.compile_commands.json"
    work = out / "src" / package
    if not database.exists():
        build(package, work, database)
    units = compile_all(json.loads(database.read_text()), target)
    good = sum(unit["error"] is None for unit in units)
    (target / "units.json").write_text(json.dumps(units, indent=1))
    shutil.rmtree(work, ignore_errors=True)
    return f"{package}: {good} of {len(units)} translation units"


def build(package: str, work: Path, database: Path) -> None:
    """Fetch `package` and build it under Bear; the compile database goes to `database`."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environment = os.environ | {
        "DEBIAN_FRONTEND": "noninteractive",
        "DEB_BUILD_OPTIONS": "nocheck nodoc noautodbgsym parallel=2",
        "DEB_BUILD_PROFILES": "nocheck nodoc",
        "FORCE_UNSAFE_CONFIGURE": "1",  # GNU programs refuse to be configured by root
        "LC_ALL": "C.UTF-8",
    }
    log = database.with_suffix(".log")

    def step(command: list[str], directory: Path, minutes: int) -> None:
        with log.open("ab") as sink:
            subprocess.run(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                timeout=60 * minutes,
                check=True,
            )

    with APT:
        step(
            [
                "apt-get",
                "-o",
                "DPkg::Lock::Timeout=600",
                "build-dep",
                "-y",
                "--no-install-recommends",
                "-P",
                "nocheck,nodoc",
                package,
            ],
            work,
            15,
        )
        try:
            step(["apt-get", "source", "--only-source", package], work, 10)
        except subprocess.CalledProcessError:
            # A security update's source may be gone from the mirror: take the stable release's.
            step(["apt-get", "source", "--only-source", f"{package}/{release()}"], work, 10)
    source = next(path for path in work.iterdir() if (path / "debian").is_dir())
    made = database.with_suffix(".tmp")
    build_only = ["dpkg-buildpackage", "-T", "build-arch", "-uc", "-us", "-d"]  # packaging compiles nothing
    try:
        step(["bear", "--output", str(made), "--", *build_only], source, 20)
    except subprocess.CalledProcessError:
        if not made.exists() or len(made.read_text()) < 10:
            raise  # documentation that fails to build is no loss, a library that does is
    if not json.loads(made.read_text()):
        raise OSError("Bear saw no compiler command")
    made.rename(database)


def release() -> str:
    """The code name of this Debian, such as `bookworm`."""
    return re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())[1]


def compile_all(entries: list[dict], target: Path) -> list[dict]:
    """Compile every distinct C file of a compile database to `target/<hash>.bc`."""
    target.mkdir(parents=True, exist_ok=True)
    distinct = {}
    for entry in entries:
        if entry["file"].endswith(".c") and "conftest" not in entry["file"]:
            distinct.setdefault((entry["directory"], entry["file"]), entry)
    clang = str(find_clang())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda entry: compile_unit(clang, entry, target), distinct.values()))


def compile_unit(clang: str, entry: dict, target: Path) -> dict:
    path = str(Path(entry["directory"], entry["file"]))
    bitcode = target / (hashlib.sha256(path.encode()).hexdigest()[:16] + ".bc")
    flags = list(kept_flags(entry["arguments"][1:], entry["file"]))
    error = None
    for _ in range(4):
        command = [clang, *flags, "-w", "-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c"]
        command += [path, "-o", str(bitcode)]
        try:
            run = subprocess.run(command, cwd=entry["directory"], capture_output=True, text=True, timeout=120)
        except (OSError, subprocess.TimeoutExpired) as failure:
            error = str(failure)
            break
        error = None if run.returncode == 0 else run.stderr.strip()[:400]
        unknown = set(re.findall(r"(?:unknown|unsupported) (?:argument|option):? '([^']+)'", error or ""))
        if not unknown:
            break
        flags = [flag for flag in flags if flag not in unknown]
    return {"file": entry["file"], "bitcode": bitcode.name, "error": error}


def kept_flags(arguments: list[str], source: str) -> Iterator[str]:
    """The flags that say what the source means: includes, macros, language and code generation."""
    iterator = iter(arguments)
    for argument in iterator:
        if argument in DROP_WITH_VALUE:
            next(iterator, None)
        elif argument == source or DROP.match(argument) or not argument.startswith("-"):
            continue
        elif argument in {"-I", "-D", "-U", "-include", "-isystem", "-iquote", "-idirafter", "-imacros", "-x"}:
            yield argument
            yield next(iterator, "")
        else:
            yield argument


if __name__ == "__main__":
    sys.exit(main())
