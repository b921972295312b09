"""The reproducers of docs/miscompilations.md: passes that are excluded because they get these wrong."""

import shutil
import subprocess
from pathlib import Path

import pytest
from compiling import clang, unoptimised_text

from secondpass.errors import PassListError
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList

CURSOR = (
    r"""
long parse(const char *start, const char **end);
int first(char **cursor) {
    if (**cursor == '-') { ++*cursor; return -2; }
    char *start = *cursor;
    int value = (int)parse(start, (const char **)cursor);
    if (*cursor == start) return -1;
    return value;
}
""",
    r"""
int first(char **cursor);
long parse(const char *start, const char **end) { *end = start + 2; return 42; }
int main(void) { char text[] = "42", *cursor = text; return first(&cursor); }
""",
)
STEPS = (
    r"""
unsigned long steps(const unsigned char *in, unsigned long size, unsigned long *last) {
    if (size == 0) return 0;
    unsigned limit = in[0];
    unsigned long used = 1;
    if (limit >= 24)
        for (; used <= limit; used++) *last = used;
    return used;
}
""",
    r"""
unsigned long steps(const unsigned char *in, unsigned long size, unsigned long *last);
int main(void) { unsigned long last; return (int)steps(&(unsigned char){41}, 1, &last); }
""",
)


def exit_code(program: tuple[str, str], pipeline: str, folder: Path) -> int:
    """What a program ends with: its first part through the pipeline, its second as it is."""
    if shutil.which("ld") is None or shutil.which("gcc") is None:
        pytest.skip("needs a linker and libc's start files: apt-get install gcc")
    (folder / "main.c").write_text(program[1])
    with Module.parse(unoptimised_text(program[0]).encode()) as module:
        module.run(pipeline)
        (folder / "part.o").write_bytes(module.emit("obj"))
    clang("-O0", "-o", folder / "program", folder / "main.c", folder / "part.o")
    return subprocess.run([folder / "program"], check=False).returncode


@pytest.mark.parametrize("program", [CURSOR, STEPS])
def test_oz_keeps_the_meaning(tmp_path, program):
    assert exit_code(program, load().oz_pipeline, tmp_path) == 42


@pytest.mark.parametrize(
    ("program", "passes", "code"),
    [
        (CURSOR, "attributor", 255),
        (CURSOR, "cgscc(attributor-cgscc)", 255),
        (STEPS, "function(newgvn,dse,newgvn)", 0),
    ],
)
def test_what_is_excluded_still_miscompiles(tmp_path, program, passes, code):
    if load().major != 23:
        pytest.skip("the reproducers are for LLVM 23")
    assert exit_code(program, f"{passes},{load().oz_pipeline}", tmp_path) == code


@pytest.mark.parametrize(
    "name", ["attributor", "attributor-cgscc", "attributor-light", "attributor-light-cgscc", "newgvn"]
)
def test_a_list_cannot_name_it(name):
    with pytest.raises(PassListError, match="miscompiles"):
        PassList.parse(name)
