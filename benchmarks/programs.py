"""Real programs, built for size by clang and by `secondpass cc`: bytes of text, build times, their own tests.

    python benchmarks/programs.py --out build/programs                       # all of them, effort 0
    python benchmarks/programs.py --out build/programs --programs zlib --efforts 0 1 2 --flavours plain outliner
    python benchmarks/programs.py --out build/programs --beside gcc lto    # and by gcc, and at link time
    python benchmarks/programs.py --out build/programs --flavours thumb    # for ARM; its tests run in qemu

Flavours for another machine are built by Debian's clang and want clang-19, qemu-user-static and a cross compiler's
libraries (`apt-get install g++-12-arm-linux-gnueabihf`, `g++-12-aarch64-linux-gnu`, `g++-12-riscv64-linux-gnu`).

Sources are Debian's (`apt-get source`, so deb-src must be on); nothing of them stays in the repository. Each program is
built in a folder of its own for every setting: `clang -Oz`, then `secondpass cc` at each effort with a cold cache and
with a warm one; then its own tests run. What is done is kept in OUT/results.json, and the same command goes on. Text is
what llvm-size counts in the linked programs and shared libraries; files are measured stripped.
"""

from __future__ import annotations

import argparse
import compileall
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import secondpass
from secondpass.corpus.debian import PackageError, fetch_source
from secondpass.errors import run_script
from secondpass.files import write_json
from secondpass.llvm.toolchain import find_clang

BIN = Path(sys.executable).parent
SYSTEM = "-rtlib=libgcc -unwindlib=libgcc -stdlib=libstdc++ -fuse-ld=bfd"
RUNTIME = f"--start-no-unused-arguments {SYSTEM} --end-no-unused-arguments"
LLD = RUNTIME.replace("-fuse-ld=bfd", "-fuse-ld=lld -Wl,--undefined-version")
LINKED = {"lld": LLD, "lto": f"{LLD} -flto"}
"""Other ways for clang to link."""
LLVM_TOOLS = {"AR": f"{BIN}/llvm-ar", "RANLIB": f"{BIN}/llvm-ranlib", "NM": f"{BIN}/llvm-nm"}
HERE = "x86_64-linux-gnu"
OTHER = "/usr/lib/llvm-19"
"""Debian's LLVM, which has all targets."""


@dataclass(frozen=True)
class Flavour:
    """How programs are built: options for the compiler and the linker; and for another machine than this one."""

    flags: str
    link: str = ""
    target: str = ""
    """Of the other LLVM; empty for the bundled clang and this machine."""

    def compilers(self, setting: str) -> dict[str, str]:
        """The variables that name the compilers."""
        if setting == "gcc":
            machine = f"{self.target or HERE}-"
            return {"CC": f"{machine}gcc-12", "CXX": f"{machine}g++-12"}
        options = f"--target={self.target}" if self.target else LINKED.get(setting, RUNTIME)
        if setting not in (BASELINE, *BESIDE):
            ours = f" {options}" if self.target else ""
            return {"CC": f"{BIN}/secondpass cc{ours}", "CXX": f"{BIN}/secondpass c++{ours}"}
        clang = f"{OTHER}/bin/clang" if self.target else str(find_clang())
        tools = LLVM_TOOLS if setting in LINKED else {}
        return {"CC": f"{clang} {options}", "CXX": f"{clang}++ {options}", **tools}

    def environment(self) -> dict[str, str]:
        """What else a build and its tests have to know."""
        if not self.target:
            return {}
        return {
            "CROSS": f"--host={self.target}",
            "CHOST": self.target,
            "QEMU_LD_PREFIX": f"/usr/{self.target}",
            "SECONDPASS_LLVM": OTHER,
        }


FLAVOURS = {
    "plain": Flavour("-Oz"),
    "sections": Flavour("-Oz -ffunction-sections -fdata-sections", "-Wl,--gc-sections"),
    # The linker's clang has no use for the option, and some programs are built with -Werror.
    "outliner": Flavour("-Oz --start-no-unused-arguments -mllvm -enable-machine-outliner --end-no-unused-arguments"),
    "debug": Flavour("-Oz -g"),
    "thumb": Flavour("-Oz -mthumb", target="arm-linux-gnueabihf"),
    "aarch64": Flavour("-Oz", target="aarch64-linux-gnu"),
    "riscv64": Flavour("-Oz", target="riscv64-linux-gnu"),
}
CONFIGURE = "test -x configure || autoreconf -i; ./configure --disable-dependency-tracking $CROSS"
CMAKE = "cmake -S . -B out -DCMAKE_BUILD_TYPE=None -DCMAKE_POLICY_VERSION_MINIMUM=3.5"
OWN = "./configure"
"""One that is not autoconf's and takes variables as arguments alone."""
BASELINE = "clang"
BESIDE = ("gcc", *LINKED)
"""Other ways to a small program: Debian's gcc 12, and, for this machine, clang -Oz with lld, and with -flto."""
LISTS = ", lists alone"


@dataclass(frozen=True)
class Program:
    """How a program is built and tested; commands run in its source, with CC, CXX, CFLAGS, CXXFLAGS and LDFLAGS set."""

    package: str
    configure: str
    build: str
    test: str
    made: tuple[str, ...]
    """Patterns of what is measured."""


PROGRAMS = {
    it.package: it
    for it in (
        Program("zlib", "./configure", "make -j2 all", "make test", ("minigzip", "example")),
        Program(
            "bzip2",
            "true",
            'make -j2 CC="$CC" CFLAGS="$CFLAGS -D_FILE_OFFSET_BITS=64" LDFLAGS="$LDFLAGS" bzip2 bzip2recover',
            'make CC="$CC" CFLAGS="$CFLAGS -D_FILE_OFFSET_BITS=64" test',
            ("libbz2.so.*.*.*", "bzip2"),
        ),
        Program("cjson", CMAKE, "cmake --build out -j2", "ctest --test-dir out", ("out/libcjson.so.*.*.*",)),
        Program("jansson", CONFIGURE, "make -j2", "make check", ("src/.libs/libjansson.so.*.*.*",)),
        Program("libyaml", CONFIGURE, "make -j2", "make check", ("src/.libs/libyaml-0.so.*.*.*",)),
        Program(
            "expat",
            f"cd expat; {CONFIGURE} --without-docbook",
            "make -j2 -C expat",
            "make -C expat check",
            ("expat/lib/.libs/libexpat.so.*.*.*", "expat/xmlwf/.libs/xmlwf"),
        ),
        Program("ed", f'{OWN} CC="$CC" CFLAGS="$CFLAGS" LDFLAGS="$LDFLAGS"', "make -j2", "make check", ("ed",)),
        Program(
            "lzip",
            f'{OWN} CXX="$CXX" CXXFLAGS="$CXXFLAGS" LDFLAGS="$LDFLAGS"',
            "make -j2",
            "make check",
            ("lzip",),
        ),
        Program(
            "json-c",
            f"{CMAKE} -DDISABLE_WERROR=ON",
            "cmake --build out -j2",
            "ctest --test-dir out",
            ("out/libjson-c.so.*.*.*",),
        ),
        Program("mawk", CONFIGURE, "make -j2", "make check", ("mawk",)),
        Program("gzip", CONFIGURE, "make -j2 MAKEINFO=true", "make check MAKEINFO=true", ("gzip",)),
        Program(
            "xz-utils",
            f"{CONFIGURE} --disable-doc",
            "make -j2",
            "make check",
            ("src/liblzma/.libs/liblzma.so.*.*.*", "src/xz/.libs/xz"),
        ),
        Program("libpng1.6", CONFIGURE, "make -j2", "make check", (".libs/libpng16.so.*.*.*",)),
        Program(
            "tinyxml2",
            f"{CMAKE} -DBUILD_SHARED_LIBS=ON",
            "cmake --build out -j2",
            "ctest --test-dir out",
            ("out/*.so.*.*.*",),
        ),
        Program(
            "pugixml",
            f"{CMAKE} -DBUILD_SHARED_LIBS=ON -DPUGIXML_BUILD_TESTS=ON",
            "cmake --build out -j2",
            "ctest --test-dir out",
            ("out/libpugixml.so.*.*", "out/pugixml-check"),
        ),
    )
}


@dataclass(frozen=True)
class Run:
    """One build of one program.

    Attributes:
        text: bytes of text of all that was made.
        stripped: bytes of the files without symbols.
        seconds: of the build, without configuring.
        warm: of a second build of the same source with the cache that the first one filled; None for clang's.
        passed: whether the tests' command ended well.
        tests: what their summary counts as passed; None where there is no summary.
    """

    text: int
    stripped: int
    seconds: float
    warm: float | None
    passed: bool
    tests: int | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--efforts", nargs="*", type=int, default=[0])
    parser.add_argument("--lists", action="store_true", help="each effort also without options of code generation")
    parser.add_argument("--flavours", nargs="+", choices=FLAVOURS, default=["plain"])
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=[], help="other ways to a small program")
    options = parser.parse_args()
    if LINKED.keys() & set(options.beside) and any(FLAVOURS[it].target for it in options.flavours):
        parser.error("--beside lld and lto are for flavours of this machine")
    compileall.compile_dir(Path(secondpass.__file__).parent, quiet=1)  # as pip does where it is installed
    options.out = options.out.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    efforts = [f"effort {it}" for it in options.efforts]
    settings = [BASELINE, *options.beside, *([f"{it}{LISTS}" for it in efforts] if options.lists else []), *efforts]
    results = Results(options.out / "results.json")
    failed: list[str] = []
    for name in options.programs:
        for flavour in options.flavours:
            for setting in settings:
                if results.get(name, flavour, setting) is None:
                    try:
                        results.put(name, flavour, setting, measured(PROGRAMS[name], options.out, flavour, setting))
                    except PackageError as error:  # the others are measured
                        failed.append(str(error))
                        print(error, file=sys.stderr, flush=True)
    for flavour in options.flavours:
        how = FLAVOURS[flavour]
        print(f"\n{flavour}: {how.flags} {how.link} {how.target}".rstrip(), end="\n\n")
        print_table(results, options.programs, flavour, settings)
    print(*(f"\nleft out: {it}" for it in failed), sep="")
    return 1 if failed else 0


class Results:
    """Runs on disk, by program, flavour and setting."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: dict[str, dict] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, *key: str) -> Run | None:
        found = self._runs.get("/".join(key))
        return Run(**found) if found else None

    def put(self, *key_and_run) -> None:
        *key, run = key_and_run
        self._runs["/".join(key)] = asdict(run)
        write_json(self._path, self._runs)
        print(f"{' / '.join(key)}: {run}", flush=True)


def measured(program: Program, out: Path, flavour: str, setting: str) -> Run:
    """Build, test and measure."""
    folder = out / f"{program.package}-{flavour}-{setting.replace(',', '').replace(' ', '-')}"
    environment = variables(out, folder, flavour, setting)
    seconds = build(program, out, folder, environment)
    warm = None
    if setting not in (BASELINE, *BESIDE):
        warm = build(program, out, folder, environment)
    made = [path for pattern in program.made for path in folder.glob(pattern) if not path.is_symlink()]
    if len(made) < len(program.made):
        raise PackageError(f"{folder}: {program.made} were not all made; see its build.txt")
    # What is compiled for the tests alone is not measured, and need not be as small as can be.
    tests = run(program.test, folder, environment | {"SECONDPASS_EFFORT": "0"}, folder / "test.txt")
    return Run(
        sum(map(text_size, made)),
        sum(stripped_size(it, folder) for it in made),
        round(seconds, 1),
        warm and round(warm, 1),
        tests == 0,
        count_of_tests((folder / "test.txt").read_text(errors="replace")),
    )


def build(program: Program, out: Path, folder: Path, environment: Mapping[str, str]) -> float:
    """Build from the pristine source; wall seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source_of(program.package, out), folder, symlinks=True)
    if run(program.configure, folder, environment | {"SECONDPASS_LOG": ""}, folder / "configure.txt"):
        raise PackageError(f"{folder}: cannot be configured; see its configure.txt")
    start = time.perf_counter()
    if run(program.build, folder, environment, folder / "build.txt"):
        raise PackageError(f"{folder}: cannot be built; see its build.txt")
    return time.perf_counter() - start


def variables(out: Path, folder: Path, flavour: str, setting: str) -> dict[str, str]:
    how = FLAVOURS[flavour]
    cache = out / "caches" / folder.name
    shutil.rmtree(cache, ignore_errors=True)
    return {
        **os.environ,
        **how.compilers(setting),
        **how.environment(),
        "CFLAGS": how.flags,
        "CXXFLAGS": how.flags,
        "LDFLAGS": how.link,
        "PATH": f"{os.environ['PATH']}:{BIN}",
        "SECONDPASS_EFFORT": setting.removeprefix("effort ").removesuffix(LISTS),
        "SECONDPASS_CODEGEN": "0" if setting.endswith(LISTS) else "1",
        "SECONDPASS_CACHE_DIR": str(cache),
        "SECONDPASS_LOG": str(out / f"{folder.name}.log"),
    }


def run(command: str, folder: Path, environment: Mapping[str, str], log: Path) -> int:
    with log.open("w") as sink:
        return subprocess.run(
            ["sh", "-ec", command], cwd=folder, env=environment, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL
        ).returncode


def source_of(package: str, out: Path) -> Path:
    """The unpacked source, fetched once."""
    folder = out / "sources" / package
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        fetch_source(package, out / "fetched" / package).rename(folder)
    return folder


def text_size(path: Path) -> int:
    lines = subprocess.run([BIN / "llvm-size", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return int(lines[1].split()[0])


def stripped_size(path: Path, folder: Path) -> int:
    target = folder / "stripped"
    subprocess.run([BIN / "llvm-strip", path, "-o", target], check=True)
    return target.stat().st_size


def count_of_tests(said: str) -> int | None:
    """Automake's and ctest's summaries."""
    counts = re.findall(r"^# PASS:\s+(\d+)", said, re.MULTILINE)
    if counts:
        return sum(map(int, counts))
    if found := re.search(r"tests passed, (\d+) tests failed out of (\d+)", said):
        return int(found[2]) - int(found[1])
    return None


def print_table(results: Results, programs: Sequence[str], flavour: str, settings: Sequence[str]) -> None:
    print("| program | built by | text | against clang | stripped | against clang | build s | again s | tests |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    ratios: dict[str, list[float]] = {}
    for name in programs:
        base = results.get(name, flavour, BASELINE)
        for setting in settings:
            it = results.get(name, flavour, setting)
            if base is None or it is None:
                continue
            ratios.setdefault(setting, []).append(it.text / base.text)
            passed = "pass" if it.passed else "FAIL"
            print(
                f"| {name} | {setting} | {it.text:,} | {it.text / base.text - 1:+.1%} | {it.stripped:,} "
                f"| {it.stripped / base.stripped - 1:+.1%} | {it.seconds:.1f} | {'' if it.warm is None else it.warm} "
                f"| {passed}{'' if it.tests is None else f' {it.tests}'} |"
            )
    for setting, values in pairs(ratios):
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"\n{setting}: text {mean - 1:+.2%} against clang -Oz, geometric mean of {len(values)} programs")


def pairs(ratios: Mapping[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
    return ((setting, values) for setting, values in ratios.items() if setting != BASELINE)


if __name__ == "__main__":
    sys.exit(run_script(main))
