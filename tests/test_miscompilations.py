"""The reproducers of docs/miscompilations.md: passes that are excluded because they get these wrong."""

import shutil
import subprocess

import pytest

from secondpass.errors import PassListError
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.toolchain import find_clang

FIRST = r"""
long parse(const char *start, const char **end);
int first(char **cursor) {
    if (**cursor == '-') { ++*cursor; return -2; }
    char *start = *cursor;
    int value = (int)parse(start, (const char **)cursor);
    if (*cursor == start) return -1;
    return value;
}
"""
MAIN = r"""
int first(char **cursor);
long parse(const char *start, const char **end) { *end = start + 2; return 42; }
int main(void) { char text[] = "42", *cursor = text; return first(&cursor); }
"""


@pytest.fixture(scope="module")
def unoptimised(tmp_path_factory) -> bytes:
    if shutil.which("ld") is None or shutil.which("gcc") is None:
        pytest.skip("needs a linker and libc's start files: apt-get install gcc")
    folder = tmp_path_factory.mktemp("first")
    (folder / "first.c").write_text(FIRST)
    (folder / "main.c").write_text(MAIN)
    flags = ["-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c"]
    subprocess.run([find_clang(), *flags, "first.c", "-o", "first.bc"], cwd=folder, check=True)
    return (folder / "first.bc").read_bytes()


def exit_code(unoptimised: bytes, pipeline: str, folder) -> int:
    with Module.parse(unoptimised) as module:
        module.run(pipeline)
        (folder / "first.o").write_bytes(module.emit("obj"))
    (folder / "main.c").write_text(MAIN)
    subprocess.run([find_clang(), "-O0", "main.c", "first.o", "-o", "program"], cwd=folder, check=True)
    return subprocess.run([folder / "program"], check=False).returncode


def test_oz_keeps_the_meaning(unoptimised, tmp_path):
    assert exit_code(unoptimised, load().oz_pipeline, tmp_path) == 42


@pytest.mark.parametrize("name", ["attributor", "cgscc(attributor-cgscc)"])
def test_the_attributor_still_miscompiles(unoptimised, tmp_path, name):
    if load().major != 23:
        pytest.skip("the reproducer is for LLVM 23")
    assert exit_code(unoptimised, f"{name},{load().oz_pipeline}", tmp_path) == 255


@pytest.mark.parametrize("name", ["attributor", "attributor-cgscc", "attributor-light", "attributor-light-cgscc"])
def test_a_list_cannot_name_it(name):
    with pytest.raises(PassListError, match="miscompiles"):
        PassList.parse(name)
