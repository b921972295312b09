"""`secondpass cc` and `secondpass c++` in the place of a compiler: real commands, real build systems, real trouble."""

import json
import marshal
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diskcache  # pyright: ignore[reportMissingTypeStubs]
import pytest
from compiling import BY_ADDRESS, CODEC, CODEC_CHECK, PROGRAM, find_tool, needs_linker
from processes import SLOW, hearing_ctrl_c, running, wait_for

from secondpass.driver.client import is_trial
from secondpass.driver.command import read_command
from secondpass.llvm import objects
from secondpass.llvm.toolchain import find_clang

BIN = Path(sys.executable).parent
SMALL = "int twice(int x) { int y = x; return y + y; }\n"
WRONG = "int f(void) { return undeclared; }\n"


@pytest.fixture
def build(tmp_path):
    """A folder to build in, with a cache and a log of its own; no trouble of ours may leave clang's object."""
    made = Build(tmp_path)
    yield made
    assert made.may_warn or not made.warned, made.warned


class Build:
    def __init__(self, folder):
        self.folder, self.log, self.cache = folder, folder / "build.log", folder / "cache"
        self.temporary = folder / "temporary"
        self.may_warn, self.warned = False, []
        self.environment = {
            **os.environ,
            "SECONDPASS_LOG": str(self.log),
            "SECONDPASS_CACHE_DIR": str(self.cache),
            "SECONDPASS_EFFORT": "0",
            "SECONDPASS_SERVER": "0",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "CC": "secondpass cc",
            "CXX": "secondpass c++",
        }

    def run(self, *words, driver="cc", **settings):
        command = [BIN / "secondpass", driver, *map(str, words)]
        environment = self.environment | settings
        return self._heard(command, environment)

    def start(self, *words):
        """A command at work on a copy of the codec; what it makes on the way is in `temporary`."""
        shutil.copy(CODEC, self.folder / "codec.c")
        self.temporary.mkdir()
        command = [BIN / "secondpass", "cc", "-Oz", "-c", *words]
        environment = {**self.environment, "TMPDIR": str(self.temporary)}
        return subprocess.Popen(
            command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def shell(self, line):
        return self._heard(["sh", "-ec", line], self.environment)

    def _heard(self, command, environment):
        run = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        self.warned += [line for line in run.stderr.splitlines() if "the object is clang's" in line]
        return run

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def records(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def by_clang(build, *words):
    return subprocess.run(
        [find_clang(), *map(str, words)], cwd=build.folder, capture_output=True, text=True, check=False
    )


@needs_linker
def test_an_object_is_smaller_than_clang_oz_and_does_the_same(build, golden_program):
    assert build.run("-Oz", "-c", CODEC, "-o", "codec.o").returncode == 0
    assert by_clang(build, "-Oz", "-c", CODEC, "-o", "oz.o").returncode == 0
    ours, theirs = ((build.folder / name).read_bytes() for name in ("codec.o", "oz.o"))
    assert objects.text_size(ours) < 0.97 * objects.text_size(theirs)
    (record,) = build.records()
    assert (record["before"], record["after"]) == (objects.text_size(theirs), objects.text_size(ours))
    assert record["functions"]["compress"] == [objects.function_sizes(it)["compress"] for it in (theirs, ours)]
    outputs = []
    for name in ("codec.o", "oz.o"):
        assert build.run("-O1", CODEC_CHECK, name, "-o", "check").returncode == 0
        outputs.append(subprocess.run([build.folder / "check"], capture_output=True, check=True, timeout=20).stdout)
    assert outputs[0] == outputs[1]


@needs_linker
def test_several_sources_are_compiled_and_linked_in_one_command(build, golden_program):
    run = build.run("-Oz", *PROGRAM, "-o", "program", "-lm")
    assert run.returncode == 0, run.stderr
    assert len(build.records()) == len(PROGRAM)
    found = subprocess.run([build.folder / "program"], capture_output=True, text=True, check=True, timeout=20)
    assert found.stdout == golden_program


def test_several_objects_of_one_command_have_their_usual_names(build):
    build.write("a.c", SMALL)
    build.write("b.c", SMALL.replace("twice", "again"))
    assert build.run("-Oz", "-c", "a.c", "b.c").returncode == 0
    assert {*objects.function_sizes((build.folder / "a.o").read_bytes())} == {"twice"}
    assert {*objects.function_sizes((build.folder / "b.o").read_bytes())} == {"again"}


@pytest.mark.parametrize(("driver", "suffix"), [("cc", ".i"), ("c++", ".ii")])
def test_preprocessed_sources_are_told_apart(build, driver, suffix):
    for name in ("one", "two"):
        build.write(f"{name}{suffix}", SMALL.replace("twice", name))
        assert build.run("-Oz", "-c", f"{name}{suffix}", driver=driver).returncode == 0
        (found,) = objects.function_sizes((build.folder / f"{name}.o").read_bytes())
        assert name in found


def test_a_configuration_file_that_changes_is_not_taken_from_the_cache(build):
    build.write("a.c", SMALL)
    images = []
    for option in ("-ffunction-sections", "-fdata-sections"):
        build.write("a.cfg", option)
        assert build.run("--config=./a.cfg", "-Oz", "-c", "a.c").returncode == 0
        images.append((build.folder / "a.o").read_bytes())
    assert b".text.twice" in images[0] and b".text.twice" not in images[1]


def test_what_the_assembler_reads_is_not_taken_from_the_cache(build):
    build.write(
        "blob.c",
        'extern const char blob[];\n__asm__(".data\\n.globl blob\\nblob: .incbin \\"blob.bin\\"\\n.text");\n'
        "int f(void) { return blob[0]; }\n",
    )
    for text in ("AAAA", "BBBB"):
        build.write("blob.bin", text)
        assert build.run("-Oz", "-c", "blob.c").returncode == 0
        assert text.encode() in (build.folder / "blob.o").read_bytes()


def test_another_compiler_under_the_same_name_is_another_one(build):
    build.write("a.c", SMALL)
    images = []
    for options in ("", "-fcf-protection=full"):
        compiler = build.write("clang", f'#!/bin/sh\nexec {find_clang()} {options} "$@"\n')
        compiler.chmod(0o755)
        assert build.run("--real-cc", compiler, "-Oz", "-c", "a.c").returncode == 0
        images.append((build.folder / "a.o").read_bytes())
    assert images[0] != images[1]


def test_a_command_that_is_told_to_end_leaves_nothing_behind(build):
    process = build.start(build.folder / "codec.c")
    wait_for(lambda: list(build.temporary.glob("*/codec.bc")))
    process.terminate()
    assert process.wait(timeout=20) == 143
    wait_for(lambda: not running(str(build.folder / "codec.c")))
    assert list(build.temporary.iterdir()) == []
    assert not (build.folder / "codec.o").exists()


def test_a_limit_of_memory_is_kept_and_no_reason_to_fail(build):
    build.write("a.c", SMALL)
    run = build.shell("ulimit -v 1500000; secondpass cc -Oz -c a.c")
    assert (run.returncode, run.stderr) == (0, "")
    assert build.records()[-1]["note"] == ""


def test_one_wrong_source_does_not_keep_the_others_from_being_compiled(build):
    build.write("wrong.c", WRONG)
    build.write("right.c", SMALL)
    assert build.run("-Oz", "-c", "wrong.c", "right.c").returncode == 1
    assert (build.folder / "right.o").exists()


def test_names_are_taken_as_they_are_written(build):
    build.write("-odd.c", SMALL + "const char *file = __FILE__;\n")
    (build.folder / "out").mkdir()
    assert build.run("-Oz", "-c", "./-odd.c", "-MMD", "-o", "out//odd.o").returncode == 0
    assert (build.folder / "out" / "odd.d").read_text().startswith("out//odd.o: ")
    assert b"./-odd.c" in (build.folder / "out" / "odd.o").read_bytes()
    assert build.run("-Oz", "-c", "-ojoined.o", "./-odd.c").returncode == 0
    assert (build.folder / "joined.o").exists()


def test_c_is_cpp_for_the_compiler_for_cpp(build):
    build.write("a.c", SMALL)
    assert build.run("-Oz", "-c", "a.c", driver="c++").returncode == 0
    assert {*objects.function_sizes((build.folder / "a.o").read_bytes())} == {"_Z5twicei"}


def test_options_for_the_linker_are_no_matter_for_the_compiler(build):
    build.write("a.c", SMALL + "int main(void) { return 0; }\n")
    run = build.run("-Oz", "-Werror", "a.c", "-o", "a", "-lm", "-Wl,-O1")
    assert (run.returncode, run.stderr) == (0, "")


def test_a_source_that_can_be_executed_is_no_compiler(build):
    build.write("a.c", SMALL).chmod(0o755)
    run = build.run("a.c", "-Oz", "-c")
    assert (run.returncode, run.stderr) == (0, "")
    assert (build.folder / "a.o").exists()


def test_text_is_not_saved_at_the_price_of_relocations(build):
    names = "".join(f'    case {number}: return "number {number}";\n' for number in range(7))
    build.write(
        "names.c", f'const char *name(int a) {{\n  switch (a) {{\n{names}    default: return "many";\n  }}\n}}\n'
    )
    assert by_clang(build, "-Oz", "-c", "names.c", "-o", "theirs.o").returncode == 0
    assert build.run("-Oz", "-c", "names.c").returncode == 0
    ours, theirs = ((build.folder / name).read_bytes() for name in ("names.o", "theirs.o"))
    assert objects.loaded_size(ours) <= objects.loaded_size(theirs)


def test_a_local_name_of_the_c_library_is_no_function_of_it(build):
    build.write(
        "main.c",
        "double pow(double, double); int printf(const char *, ...);\nstatic int exp2 = 5, putchar = 1;\n"
        '__attribute__((noinline)) static void puts(int level, const char *s) { printf("[%d] %s|", level, s); }\n'
        'void hello(void) { printf("hello world\\n"); printf("\\n"); }\n'
        "double power(double x) { return pow(2.0, x) + exp2++; }\n"
        'int main(void) { hello(); puts(putchar++, "a"); puts(putchar, "b"); printf("%g", power(1)); return 0; }\n',
    )
    assert build.run("-Oz", "-w", "-c", "main.c").returncode == 0
    assert build.run("main.o", "-lm", "-o", "main").returncode == 0
    found = subprocess.run([build.folder / "main"], capture_output=True, text=True, check=True, timeout=20)
    assert found.stdout == "hello world\n\n[1] a|[2] b|7"


@needs_linker
@pytest.mark.parametrize("flags", [(), ("-g",)])
def test_an_interpreter_with_computed_goto_is_smaller_and_does_the_same(build, flags):
    build.write(
        "run.c",
        "int printf(const char *, ...); typedef struct { long stack[64]; int top; } VM;\n"
        "__attribute__((noinline)) static void push(VM *vm, long v) { if (vm->top < 64) vm->stack[vm->top++] = v; }\n"
        "__attribute__((noinline)) static long pop(VM *vm) { return vm->top ? vm->stack[--vm->top] : 0; }\n"
        "static long power(long a, long b) { long r = 1; while (b-- > 0) r *= a; return r; }\n"
        "static long turned(long a) { int n = 0; char c[32];\n"
        "do { c[n++] = '0' + a % 10; a /= 10; } while (a && n < 32);\n"
        "long r = 0; for (int i = 0; i < n; i++) r = r * 10 + (c[i] - '0'); return r; }\n"
        "long run(const unsigned char *code) { VM vm = {{0}, 0};\n"
        "static const void *const to[] = {&&put, &&add, &&raise, &&turn, &&end}; goto *to[*code++];\n"
        "put: push(&vm, *code++); goto *to[*code++];\n"
        "add: push(&vm, pop(&vm) + pop(&vm)); goto *to[*code++];\n"
        "raise: { long b = pop(&vm), a = pop(&vm); push(&vm, power(a, b)); goto *to[*code++]; }\n"
        "turn: push(&vm, turned(pop(&vm))); goto *to[*code++];\n"
        "end: return pop(&vm); }\n"
        "int main(void) { unsigned char code[] = {0, 3, 0, 4, 1, 0, 3, 2, 3, 4};\n"
        'printf("%ld %ld\\n", run(code), turned(1234)); return 0; }\n',
    )
    assert build.run("-Oz", *flags, "-c", "run.c").returncode == 0
    (record,) = build.records()
    assert (record["note"], record["after"] < record["before"]) == ("", True)
    assert build.run("run.o", "-o", "run").returncode == 0
    found = subprocess.run([build.folder / "run"], capture_output=True, text=True, check=True, timeout=20)
    assert found.stdout == "343 4321\n"


def test_what_clang_never_calls_is_not_asked_of_the_linker(build):
    build.write(
        "modes.c",
        "extern int not_there(int), nowhere; static int traced; enum { READ, WRITE };\n"
        "__attribute__((noinline)) static int each(int mode, const int *p, int n)\n"
        "{ int sum = 0; for (int i = 0; i < n; i++) { sum += p[i] * p[i] + i; if (mode == WRITE) sum += not_there(i);\n"
        "if (traced) nowhere++; } return sum; }\n"
        "int all(const int *p) { return each(READ, p, 100) + each(READ, p + 1, 50); }\n"
        "int some(const int *p) { return each(READ, p, 10) - each(READ, p + 5, 9); }\n",
    )
    for name, run in (("ours.o", build.run), ("oz.o", lambda *words: by_clang(build, *words))):
        assert run("-Oz", "-c", "modes.c", "-o", name).returncode == 0
    undefined = [
        subprocess.run([find_tool("llvm-nm"), "-u", build.folder / it], capture_output=True, text=True, check=True)
        for it in ("ours.o", "oz.o")
    ]
    assert undefined[0].stdout == undefined[1].stdout == ""


def test_functions_that_are_not_to_be_optimised_are_not(build):
    build.write(
        "wipe.c",
        "#pragma clang optimize off\n#include <string.h>\n"
        "void use(char *); void wipe(void) { char key[32]; use(key); memset(key, 0, sizeof key); }\n",
    )
    assert build.run("-Oz", "-c", "wipe.c").returncode == 0
    (record,) = build.records()
    assert record["after"] == record["before"]


def test_constants_are_not_saved_by_moving_them_where_they_can_be_written(build):
    values = ", ".join(str(it * it % 251) for it in range(64))
    build.write(
        "table.c", f"static int table[64] = {{{values}}};\nint f(int i) {{ return table[i & 63] + table[i & 7]; }}\n"
    )
    assert build.run("-Oz", "-c", "table.c").returncode == 0
    assert objects.written_size((build.folder / "table.o").read_bytes()) == 0


def test_a_helper_of_a_library_function_does_not_become_a_call_of_it(build):
    build.write(
        "own.c",
        "typedef unsigned long size_t;\n"
        "size_t length(const char *s) { size_t n = 0; while (*s++) n++; return n; }\n"
        "size_t strlen(const char *s) { return length(s); }\n"
        "static int differ(const unsigned char *a, const unsigned char *b, size_t n)"
        " { for (; n; n--, a++, b++) if (*a != *b) return *a - *b; return 0; }\n"
        "int memcmp(const void *a, const void *b, size_t n) { return differ(a, b, n); }\n",
    )
    assert build.run("-Oz", "-c", "own.c").returncode == 0
    sizes = objects.function_sizes((build.folder / "own.o").read_bytes())
    assert min(sizes[it] for it in ("length", "strlen", "memcmp")) > 0
    build.write(
        "main.c", "unsigned long length(const char *);\nint main(int n, char **all) { return length(all[1]); }\n"
    )
    needs_linker()
    assert build.run("-Oz", "main.c", "own.o", "-o", "main").returncode == 0
    assert subprocess.run([build.folder / "main", "seventy"], check=False).returncode == 7


def test_returns_by_a_thunk_stay_so(build):
    calls = " ".join(f"g({k}00, {k}01, {k}02);" for k in range(1, 6))
    functions = "".join(f"int f{k}(int n) {{ {calls} return g(n, {k}, 7); }}\n" for k in range(8))
    build.write("thunk.c", f"int g(int, int, int);\n{functions}")
    for words, outlined in ((), True), (("-mfunction-return=thunk-extern",), False):
        assert build.run("-Oz", "-c", "--target=x86_64-linux-gnu", *words, "thunk.c").returncode == 0
        names = objects.function_sizes((build.folder / "thunk.o").read_bytes())
        assert any("OUTLINED" in it for it in names) == outlined


@pytest.mark.parametrize("section", [".ramtext", ".text_ram", ".text.fast"])
def test_code_with_a_section_of_its_own_stays_there(build, section):
    line = "tab[3]->a = n; tab[4]->b = n + 1; tab[5]->a = n + 2; tab[6]->b = n; tab[7]->a = r[0]; r[1] = n;"
    functions = "".join(f"R int f{k}(int n) {{ {line} return r[{k}]; }}\n" for k in range(4))
    build.write(
        "ram.c",
        f'#define R __attribute__((section("{section}"), noinline))\n'
        f"extern volatile long *r; extern struct S {{ int a, b; }} *tab[64];\n{functions}",
    )
    assert build.run("-Oz", "-c", "-m32", "-fno-pic", "ram.c").returncode == 0
    assert not [it for it in objects.function_sizes((build.folder / "ram.o").read_bytes()) if "OUTLINED" in it]


@pytest.mark.parametrize(
    "words", [("-include-pch", "all.h.pch"), ("-include", "all.h"), ("-Xclang", "-include-pch", "-Xclang", "all.h.pch")]
)
def test_with_a_precompiled_header_a_source_is_read_at_the_headers_level(build, words):
    build.write("all.h", "struct S { int a, b[9]; };\n")
    loop = "for (int i = 0; i < s->a; i++) if (s->b[i] > 3) n += s->b[i]; else n -= s->b[i];"
    build.write("a.c", f"int f(struct S *s) {{ int n = 0; {loop} return n; }}\n")
    assert build.run("-Os", "-x", "c-header", "all.h", "-o", "all.h.pch").returncode == 0
    run = build.run("-Os", *words, "-c", "a.c")
    assert (run.returncode, run.stderr) == (0, "")
    (record,) = build.records()
    assert record["note"] == "" and 0 < record["after"] < record["before"]


def test_dependencies_asked_of_the_preprocessor_name_the_object(build):
    build.write("a.h", SMALL)
    build.write("a.c", '#include "a.h"\n')
    (build.folder / "sub").mkdir()
    for _ in range(2):
        assert build.run("-Oz", "-Wp,-MMD,a.d", "-c", "a.c", "-o", "sub/a.o").returncode == 0
        assert (build.folder / "a.d").read_text() == "sub/a.o: a.c a.h\n"
    assert [it["cached"] for it in build.records()] == [False, True]


def test_options_of_the_compiler_are_no_matter_for_the_linker(build):
    build.write("main.c", "int main(void) { return 0; }\n")
    run = build.run("-Oz", "-Werror", "-Wa,--noexecstack", "main.c", "-o", "main")
    assert (run.returncode, run.stderr) == (0, "")


def test_with_standard_error_closed_there_is_an_object_all_the_same(build):
    build.write("a.c", SMALL)
    assert build.shell("secondpass cc -Oz -c a.c 2>&-").returncode == 0
    assert objects.function_sizes((build.folder / "a.o").read_bytes())


def test_debug_information_shows_the_source_as_it_is(build):
    for text in (SMALL, f"{SMALL}/* another comment */\n"):
        build.write("a.c", text)
        assert build.run("-Oz", "-g", "-c", "a.c").returncode == 0
    assert [it["cached"] for it in build.records()] == [False, False]


def test_a_broken_pipe_ends_what_clang_writes_as_it_does_alone(build):
    build.write("long.c", "int x;\n" * 50_000)
    assert build.shell("secondpass cc -E long.c 2>errors | head -1").returncode == 0
    assert (build.folder / "errors").read_text() == ""


def test_diagnostics_and_exit_code_are_clangs(build):
    build.write("wrong.c", WRONG)
    build.write("warns.c", "int f(void) { int unused; return 0; }\n")
    for words in (("wrong.c",), ("warns.c", "-Wall", "-o", "absent/warns.o")):
        theirs, ours = by_clang(build, "-Oz", "-c", *words), build.run("-Oz", "-c", *words)
        assert theirs.returncode
        assert (ours.returncode, ours.stderr, ours.stdout) == (theirs.returncode, theirs.stderr, theirs.stdout)
    for _ in range(2):  # anew, and from the cache
        run = build.run("-Oz", "-Wall", "-c", "warns.c")
        assert run.returncode == 0
        assert run.stderr == by_clang(build, "-Oz", "-Wall", "-c", "warns.c").stderr
    assert build.run("-Oz", "-c", "absent.c").returncode == 1


@pytest.mark.parametrize(
    "words", [("-O2", "-c"), ("-Oz", "-E"), ("-Oz", "-S"), ("-Oz", "-M"), ("-fsyntax-only",), ("-Oz", "-c", "-flto")]
)
def test_what_is_not_our_business_is_clangs_to_the_byte(build, words):
    build.write("a.c", SMALL)
    output = ("-o", "ours") if "-fsyntax-only" not in words else ()
    assert build.run(*words, "a.c", *output).returncode == 0
    if output:
        assert by_clang(build, *words, "a.c", "-o", "theirs").returncode == 0
        assert (build.folder / "ours").read_bytes() == (build.folder / "theirs").read_bytes()
    assert not build.records()


def test_standard_input_is_compiled(build):
    run = subprocess.run(
        [BIN / "secondpass", "cc", "-Oz", "-x", "c", "-c", "-", "-o", "a.o"],
        input=SMALL,
        cwd=build.folder,
        env=build.environment,
        text=True,
        check=True,
    )
    assert run.returncode == 0
    assert objects.function_sizes((build.folder / "a.o").read_bytes())


def test_force_takes_every_level(build):
    build.write("a.c", SMALL)
    assert build.run("-O2", "-c", "a.c", SECONDPASS_FORCE="1").returncode == 0
    assert len(build.records()) == 1


def test_the_second_time_comes_from_the_cache_with_everything_beside_it(build):
    build.write("a.h", "#define N 3\n")
    build.write("a.c", '#include "a.h"\n' + SMALL.replace("y + y", "y + N"))
    words = "-Oz", "-MMD", "-c", "a.c", "-o", "out.o"
    assert build.run(*words).returncode == 0
    first, rules = (build.folder / "out.o").read_bytes(), (build.folder / "out.d").read_text()
    assert rules.split() == ["out.o:", "a.c", "a.h"]
    for name in ("out.o", "out.d"):
        (build.folder / name).unlink()
    assert build.run(*words).returncode == 0
    assert (build.folder / "out.o").read_bytes() == first
    assert (build.folder / "out.d").read_text() == rules
    build.write("a.h", "#define N 4\n")
    assert build.run(*words).returncode == 0
    assert (build.folder / "out.o").read_bytes() != first
    assert build.run(*words, "-DN2").returncode == 0
    assert [it["cached"] for it in build.records()] == [False, True, False, False]
    assert all(it["output"] == str(build.folder / "out.o") for it in build.records())


def test_without_a_cache_the_object_is_the_same_again(build):
    functions = (BY_ADDRESS.replace("put", f"put{it}").replace("pen", f"pen{it}") for it in range(4))
    build.write("a.c", "".join(functions))
    made = []
    for number in range(2):
        assert build.run("-Oz", "-c", "a.c", "-o", f"{number}.o", SECONDPASS_CACHE_SIZE="0").returncode == 0
        made.append((build.folder / f"{number}.o").read_bytes())
    assert len(set(made)) == 1
    assert not any(it["cached"] for it in build.records())


def damaged(cache):
    cache.mkdir()
    (cache / "cache.db").write_bytes(b"not a database, by any means" * 100)


def no_folder(cache):
    cache.write_text("a file")


def alike(build, *words, **settings):
    """Our diagnostics, which have to be clang's; whether they came from the cache is for the test to see to."""
    run, theirs = build.run(*words, **settings), by_clang(build, *words)
    assert (run.returncode, run.stderr) == (theirs.returncode, theirs.stderr)
    return run


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        ((), ["#warning one\n" + SMALL, "#warning two\n" + SMALL, "\n" + SMALL]),
        (("-Wundef",), ["#define Z 1\n#if Z\n#endif\n" + SMALL, "#define Y 1\n#if Z\n#endif\n" + SMALL]),
        (("-Wall",), ["int f(int x) { int   u; return x; }\n", "int f(int x) { int u; /* c */ return x; }\n"]),
    ],
)
def test_warnings_from_the_cache_are_those_of_the_text_as_it_is(build, words, texts):
    for text in (*texts, texts[0]):
        build.write("a.c", text)
        alike(build, *words, "-Oz", "-c", "a.c")
        alike(build, *words, "-Oz", "-c", "a.c")
        assert build.records()[-1]["cached"]


@needs_linker
def test_warnings_from_the_cache_are_those_of_the_command_as_it_is(build):
    build.write("a.c", SMALL + "int main(void) { return twice(0); }\n")
    assert "-lm" in alike(build, "-Oz", "-c", "a.c", "-lm").stderr
    assert build.run("-Oz", "a.c", "-lm", "-o", "a").stderr == ""
    assert alike(build, "-Oz", "-c", "a.c").stderr == ""
    assert "-MF" in alike(build, "-Oz", "-MF", "x.d", "-c", "a.c").stderr
    shutil.copy(build.write("a.i", "int f(int x) { int u; return x; }\n"), build.folder / "b.i")
    for name in ("a.i", "b.i"):
        assert name in alike(build, "-Wall", "-Oz", "-c", name).stderr


def test_what_preprocessing_does_not_keep_is_not_taken_from_the_cache(build):
    for text in ("return x + __builtin_COLUMN();", "return x  +  __builtin_COLUMN();"):
        build.write("a.c", f"int f(int x) {{ {text} }}\n")
        assert build.run("-Oz", "-c", "a.c").returncode == 0
        made = (build.folder / "a.o").read_bytes()
        assert build.run("-Oz", "-c", "a.c", SECONDPASS_CACHE_SIZE="0").returncode == 0
        assert (build.folder / "a.o").read_bytes() == made


def test_dependencies_on_standard_output_are_there_every_time(build):
    build.write("a.c", SMALL)
    for _ in range(2):
        assert build.run("-Oz", "-MMD", "-MF", "-", "-c", "a.c").stdout == "a.o: a.c\n"


def test_a_folder_has_the_name_by_which_it_was_entered(build):
    build.write("sub/a.c", SMALL)
    (build.folder / "link").symlink_to("sub")
    for name in ("sub", "link"):
        assert build.shell(f"cd {name}; secondpass cc -g -Oz -c a.c -o a.o").returncode == 0
        assert str(build.folder / name).encode() in (build.folder / "sub/a.o").read_bytes()


def test_what_clang_changes_in_its_command_line_is_clangs(build):
    build.write("a.c", SMALL)
    run = build.run("-Oz", "-c", "a.c", CCC_OVERRIDE_OPTIONS="# +-ffunction-sections")
    assert run.returncode == 0 and not build.records()
    assert b".text.twice" in (build.folder / "a.o").read_bytes()


def test_a_file_of_one_process_alone_is_read_once(build):
    build.write("a.c", "int f(void) { return X; }\n")
    run = subprocess.run(
        ["bash", "-c", "secondpass cc -Oz -include <(echo '#define X 5') -c a.c"],
        cwd=build.folder,
        env=build.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_warnings_are_said_once_where_a_later_source_fails(build):
    build.write("a.c", "int f(int x) { int unused; return x; }\n")
    build.write("b.c", WRONG)
    assert alike(build, "-Wall", "-Os", "-c", "a.c", "b.c").stderr.count("unused") > 0


def test_a_compiler_that_dies_says_so_as_clang_does(build):
    build.write("a.c", "#pragma clang __debug crash\n" + SMALL)
    line = "{} -Oz -c a.c -fno-crash-diagnostics"
    ours, theirs = (build.shell(f"{line.format(it)} || echo $?").stdout for it in ("secondpass cc", find_clang()))
    assert ours == theirs


@pytest.mark.parametrize("output", ["./foo.", ".hidden", "a.b.o", "no.such/../foo"])
def test_dependency_files_are_called_as_clang_calls_them(build, output):
    (build.folder / "no.such").mkdir()
    build.write("a.c", SMALL)
    found = []
    for run in (build.run, lambda *words: by_clang(build, *words)):
        assert run("-Oz", "-MMD", "-c", "a.c", "-o", output).returncode == 0
        made = {it: it.read_text() for it in build.folder.rglob("*.d") if it.is_file()}
        found.append({it: text for it, text in made.items() if it.unlink() is None})
    assert found[0] == found[1] and found[0]


def test_objects_of_another_effort_or_other_code_generation_are_kept_apart(build):
    build.write("a.c", "int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += p[i] * 3; return s; }\n")
    for settings in ({}, {"SECONDPASS_EFFORT": "1"}, {"SECONDPASS_CODEGEN": "0"}, {}):
        assert build.run("-Oz", "-c", "a.c", **settings).returncode == 0
    records = build.records()
    assert [it["cached"] for it in records] == [False, False, False, True]
    assert [it["effort"] for it in records[:3]] == [0, 1, 0]
    assert records[2]["codegen"] == []


@pytest.mark.parametrize("damage", [damaged, no_folder])
def test_a_cache_that_cannot_be_used_is_one_warning(build, damage):
    damage(build.cache)
    build.may_warn = True
    build.write("a.c", SMALL)
    run = build.run("-Oz", "-c", "a.c")
    assert run.returncode == 0
    assert run.stderr.count("\n") == 1 and "warning: the cache at" in run.stderr
    assert len(build.records()) == 1


def test_a_cache_that_is_broken_begins_anew(build):
    damaged(build.cache)
    old = build.cache / "0a" / "ff" / "lost.val"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of a database that is lost")
    build.write("a.c", SMALL)
    said = [build.run("-Oz", "-c", "a.c").stderr for _ in range(3)]
    assert "begins anew" in said[0] and said[1:] == ["", ""]
    assert [it["cached"] for it in build.records()] == [False, False, True]
    assert not old.exists()


def test_an_object_that_is_broken_in_the_cache_is_made_anew(build):
    build.write("a.c", SMALL)
    assert build.run("-Oz", "-c", "a.c").returncode == 0
    made = (build.folder / "a.o").read_bytes()
    with diskcache.Cache(str(build.cache)) as store:
        (key,) = store
        kept = store[key]
        for wrong in (kept[:-1], kept[:50] + bytes([kept[50] ^ 1]) + kept[51:], b"", (made, "", "{}")):
            store[key] = wrong
            run = build.run("-Oz", "-c", "a.c")
            assert (run.returncode, run.stderr, store[key]) == (0, "", kept)
            assert (build.folder / "a.o").read_bytes() == made
    assert [it["cached"] for it in build.records()] == [False] * 5


def test_trouble_of_ours_is_one_warning_and_clangs_object(build):
    build.may_warn = True
    build.write("a.c", SMALL)
    run = build.run("--real-cc", find_clang(), "-Oz", "-c", "a.c", SECONDPASS_LLVM="/no/such/library")
    assert run.returncode == 0
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("secondpass: warning: ")
    assert by_clang(build, "-Oz", "-c", "a.c", "-o", "oz.o").returncode == 0
    assert (build.folder / "a.o").read_bytes() == (build.folder / "oz.o").read_bytes()


def test_without_any_compiler_one_line_says_so(build):
    build.write("a.c", SMALL)
    run = build.run("-Oz", "-c", "a.c", SECONDPASS_LLVM="/no/such/library")
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("secondpass: SECONDPASS_LLVM=/no/such/library")


def test_an_effort_that_does_not_exist_is_said_and_the_build_goes_on(build):
    build.write("a.c", SMALL)
    run = build.run("-Oz", "-c", "a.c", SECONDPASS_EFFORT="9")
    assert run.returncode == 0
    assert "SECONDPASS_EFFORT=9: give a number from 0 to 3" in run.stderr
    assert (build.folder / "a.o").exists()


OTHER_LLVM = Path("/usr/lib/llvm-19")
OTHER_CLANG = OTHER_LLVM / "bin" / "clang"
needs_other_clang = pytest.mark.skipif(
    not OTHER_CLANG.exists(), reason="no clang of all targets: apt-get install clang-19"
)


@needs_other_clang
@pytest.mark.parametrize(
    ("target", "place", "mark"),
    [
        ("thumbv6m-none-eabi", 18, b"\x28\0"),  # e_machine
        ("thumbv7m-none-eabi", 18, b"\x28\0"),
        ("riscv32-unknown-elf", 18, b"\xf3\0"),
        ("aarch64-linux-gnu", 18, b"\xb7\0"),
        ("wasm32", 0, b"\0asm"),
    ],
)
def test_code_for_another_machine_is_made_smaller(build, target, place, mark):
    words = f"--target={target}", "-ffreestanding", "-Oz", "-c", CODEC
    run = build.run(*words, "-o", "codec.o", SECONDPASS_LLVM=str(OTHER_LLVM))
    assert (run.returncode, run.stderr) == (0, "")
    subprocess.run([OTHER_CLANG, *words, "-o", "oz.o"], cwd=build.folder, check=True)
    ours, theirs = ((build.folder / name).read_bytes() for name in ("codec.o", "oz.o"))
    assert objects.text_size(ours) < 0.96 * objects.text_size(theirs)
    assert objects.function_sizes(ours).keys() >= {"compress", "crc32"}
    assert ours[place:].startswith(mark)


@needs_other_clang
def test_no_helper_is_called_that_clangs_object_does_not_call(build):
    build.write(
        "a.c",
        "unsigned divided(unsigned a, unsigned b);\n"
        "unsigned split(unsigned a, unsigned b, unsigned *rest) { *rest = a - a / b * b; return a / b; }\n"
        "int same(int x) { int y = x; return y + y; }\n",
    )
    words = "--target=thumbv6m-none-eabi", "-ffreestanding", "-Oz", "-c", "a.c"
    assert build.run(*words, SECONDPASS_LLVM=str(OTHER_LLVM)).returncode == 0
    subprocess.run([OTHER_CLANG, *words, "-o", "oz.o"], cwd=build.folder, check=True)
    ours, theirs = ((build.folder / name).read_bytes() for name in ("a.o", "oz.o"))
    assert objects.undefined(ours) <= objects.undefined(theirs) == {"__aeabi_uidiv"}


@needs_other_clang
def test_sizes_of_a_webassembly_object_are_those_of_llvms_tools(build):
    source = (
        "extern int far(int); extern int there[]; const int table[] = {1, 2, 3}; int data[2] = {7}, zero[9];"
        "int *const places[] = {data, there};"
        "int one(int i) { return far(table[i]) + data[i]; } int two(int i) { return one(i) * zero[i] - *places[i]; }"
        "static int (*const all[])(int) = {one, far, two}; int three(int i) { return all[i](i); }"
    )
    build.write("a.c", source)
    subprocess.run([OTHER_CLANG, "--target=wasm32", "-Oz", "-c", "a.c"], cwd=build.folder, check=True)
    image = (build.folder / "a.o").read_bytes()
    said = subprocess.run([BIN / "llvm-size", "a.o"], cwd=build.folder, capture_output=True, text=True, check=True)
    text, data = map(int, said.stdout.splitlines()[1].split()[:2])
    assert objects.text_size(image) == text
    constants, written, cleared = 12 + 8 + 12, 8, 36
    assert constants + written + cleared < data  # llvm-size counts the segments' heads, and zeros that no file holds
    assert objects.code_size(image) == objects.loaded_size(image) == text + constants + written
    assert objects.written_size(image) == written
    sizes = objects.function_sizes(image)
    assert list(sizes) == ["one", "two", "three"]
    assert objects.undefined(image) == {"far"}
    assert sum(sizes.values()) + 3 < text <= sum(sizes.values()) + 10  # a number before each, and one before all


@needs_other_clang
def test_a_clang_of_another_llvm_than_the_library_is_one_warning_that_says_the_mend(build):
    build.may_warn = True
    build.write("a.c", "int f(const int *p) { return *p; }\n")
    run = build.run("--real-cc", OTHER_CLANG, "-Oz", "-c", "a.c")
    assert run.returncode == 0
    assert run.stderr.count("\n") == 1
    assert "of another LLVM than the libLLVM in force: set SECONDPASS_LLVM" in run.stderr
    assert (build.folder / "a.o").exists()


def test_a_launcher_gets_the_compiler_as_its_first_word(build):
    build.write("a.c", SMALL)
    assert build.run(find_clang(), "-Oz", "-c", "a.c").returncode == 0
    assert build.run("--real-cc", find_clang(), "-Oz", "-c", "a.c", "-o", "b.o").returncode == 0
    assert len(build.records()) == 2
    assert (build.folder / "a.o").read_bytes() == (build.folder / "b.o").read_bytes()


def test_a_compiler_that_is_no_clang_does_all_of_it_alone(build):
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc: apt-get install gcc")
    build.write("a.c", SMALL)
    assert build.run(gcc, "-Os", "-c", "a.c").returncode == 0
    assert b"GCC: " in (build.folder / "a.o").read_bytes()
    assert not build.records()


def test_a_killed_build_leaves_no_object_and_the_next_one_works(build):
    process = build.start("codec.c")
    wait_for(lambda: list(build.temporary.glob("*/clang.o")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (build.folder / "codec.o").exists()
    assert build.run("-Oz", "-c", "codec.c").returncode == 0
    assert [it["cached"] for it in build.records()] == [False]


def test_an_optimiser_that_is_killed_is_one_warning_and_clangs_object(build):
    process = build.start("codec.c")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        its = children.read_text().split()
        found = [it for it in running("\0cc\0-Oz") if str(it) in its]
        if found and list(build.temporary.glob("*/codec.bc")):
            os.kill(found[0], signal.SIGKILL)
            break
        time.sleep(0.01)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said.count("\n") == 1 and "its optimiser ended with code -9; the object is clang's" in said
    assert objects.function_sizes((build.folder / "codec.o").read_bytes())["compress"]
    for cached in (False, True):  # what failed is tried again
        assert build.run("-Oz", "-c", "codec.c").returncode == 0
        assert build.records()[-1]["cached"] is cached


# The server


@pytest.fixture
def served(build):
    """A build whose server runs."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:  # a socket's path has at most 107 characters
        build.environment |= {"XDG_RUNTIME_DIR": folder, "SECONDPASS_SERVER": "60"}
        build.write("first.c", SMALL)
        assert build.run("-Oz", "-c", "first.c").returncode == 0
        wait_for(lambda: list(Path(folder).glob("secondpass/*.socket")))
        yield build
        for pid in servers(folder):
            os.kill(pid, signal.SIGKILL)


def servers(folder):
    """The processes that serve a socket in a folder, forks for their commands among them."""
    return running("secondpass.driver.server", folder)


def runtime(build):
    return build.environment["XDG_RUNTIME_DIR"]


def test_a_served_command_does_what_one_without_a_server_does(served):
    (server,) = servers(runtime(served))
    os.kill(server, signal.SIGSTOP)
    process = subprocess.Popen(
        [BIN / "secondpass-cc", "-Oz", "-c", CODEC, "-o", "served.o"], cwd=served.folder, env=served.environment
    )
    with pytest.raises(subprocess.TimeoutExpired):  # it waits for the server, so the server does it
        process.wait(3)
    os.kill(server, signal.SIGCONT)
    assert process.wait(120) == 0
    shutil.rmtree(served.cache)
    assert served.run("-Oz", "-c", CODEC, "-o", "alone.o", SECONDPASS_SERVER="0").returncode == 0
    images = [(served.folder / name).read_bytes() for name in ("served.o", "alone.o")]
    assert images[0] == images[1]
    _, first, second = served.records()
    assert first["after"] == second["after"] < first["before"]


def test_a_served_command_has_the_clients_folder_files_and_limits(served):
    folder = served.folder / "below"
    folder.mkdir()
    (folder / "small.c").write_text(SMALL)
    (folder / "wrong.c").write_text(WRONG)
    line = f"cd below; umask 027; ulimit -t 50; {BIN}/secondpass-cc -Oz -c small.c; {BIN}/secondpass-cc -Oz -c wrong.c"
    run = served.shell(f"{line} || exit $(($? + 40))")
    assert run.returncode == 41
    assert (folder / "small.o").stat().st_mode & 0o777 == 0o640
    alone = by_clang(served, "-Oz", "-c", folder / "wrong.c")
    assert run.stderr == alone.stderr.replace(f"{folder}/", "")
    limits = served.shell(f"ulimit -t 50; SECONDPASS_REAL_CC=$PWD/limits.sh {BIN}/secondpass-cc -O1 -c small.c")
    assert limits.returncode == 1  # there is no such compiler
    script = served.write("limits.sh", "#!/bin/sh\nulimit -t\ncat\n")
    script.chmod(0o755)
    limits = served.shell(f"ulimit -t 50; echo in | SECONDPASS_REAL_CC={script} {BIN}/secondpass-cc -O1 -c small.c")
    assert limits.stdout == "50\nin\n"


@pytest.fixture
def stopped(served):
    """A build whose server is there and does not answer."""
    (server,) = servers(runtime(served))
    os.kill(server, signal.SIGSTOP)
    yield served
    os.kill(server, signal.SIGCONT)


def trial(build, *words, driver="cc", **settings):
    """A command that must not wait for the server."""
    command, environment = [BIN / "secondpass", driver, *map(str, words)], build.environment | settings
    return subprocess.run(
        command, cwd=build.folder, env=environment, capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize(("driver", "name"), [("cc", "conftest.c"), ("c++", "conftest.cpp")])
def test_a_trial_of_a_build_system_does_not_wait_for_the_server(stopped, driver, name):
    stopped.write(name, SMALL)
    assert trial(stopped, "-Oz", "-c", name, "-o", "ours.o", driver=driver).returncode == 0
    subprocess.run([find_clang(), "-Oz", "-c", name, "-o", "theirs.o"], cwd=stopped.folder, check=True)
    assert (stopped.folder / "ours.o").read_bytes() == (stopped.folder / "theirs.o").read_bytes()
    assert {Path(it["source"]).name for it in stopped.records()} == {"first.c"}
    wrong = trial(stopped, "-Oz", "-c", f"missing/{name}", driver=driver)
    assert (wrong.returncode, f"missing/{name}" in wrong.stderr) == (1, True)
    linked = trial(stopped, name, "-Oz", "-o", "conftest", driver=driver)
    assert "main" in linked.stderr


def test_a_trial_is_by_the_compiler_that_the_environment_names(served, tmp_path):
    script = tmp_path / "clang-of-ours"
    script.write_text("#!/bin/sh\necho ran >&2\n")
    script.chmod(0o755)
    served.write("conftest.c", SMALL)
    run = trial(served, "-Oz", "-c", "conftest.c", SECONDPASS_REAL_CC=str(script))
    assert (run.returncode, run.stderr) == (0, "ran\n")


@pytest.mark.parametrize("named", [marshal.dumps({"c": ["/nowhere/clang"]}), b"nonsense", marshal.dumps({})])
def test_a_trial_whose_clang_is_not_there_is_made_by_the_server(served, named):
    (file,) = Path(runtime(served)).glob("secondpass/*.clang")
    file.write_bytes(named)
    made_by_the_server(served)


def test_a_clang_that_others_may_have_named_is_not_called(served):
    (file,) = Path(runtime(served)).glob("secondpass/*.clang")
    file.chmod(0o666)
    made_by_the_server(served)


def made_by_the_server(served):
    served.write("conftest.c", SMALL)
    (server,) = servers(runtime(served))
    os.kill(server, signal.SIGSTOP)
    command = [BIN / "secondpass", "cc", "-Oz", "-c", "conftest.c"]
    process = subprocess.Popen(command, cwd=served.folder, env=served.environment)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3)
    os.kill(server, signal.SIGCONT)
    assert process.wait(60) == 0
    assert (served.folder / "conftest.o").exists()


def test_a_clang_that_is_found_from_the_folder_of_the_command_is_not_named(build):
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        build.environment |= {"XDG_RUNTIME_DIR": folder, "SECONDPASS_SERVER": "60"}
        build.environment["PATH"] += ":tools"
        build.write("first.c", SMALL)
        assert build.run("-Oz", "-c", "first.c").returncode == 0
        wait_for(lambda: list(Path(folder).glob("secondpass/*.socket")))
        assert not list(Path(folder).glob("secondpass/*.clang"))
        for pid in servers(folder):
            os.kill(pid, signal.SIGKILL)


def test_a_command_in_a_folder_that_is_gone(served):
    served.write("main.c", SMALL)
    command = "mkdir gone; cd gone; rmdir ../gone; secondpass cc -O2 -c {0}/main.c -o {0}/main.o"
    run = served.shell(command.format(served.folder))
    assert run.returncode == 0, run.stderr
    assert (served.folder / "main.o").exists()


@pytest.mark.parametrize(
    ("words", "trial"),
    [
        ("-c conftest.c", True),
        ("-o conftest -Oz conftest.c -lm", True),
        ("-Oz -o t.o -c /build/CMakeFiles/CMakeScratch/TryCompile-1/testCCompiler.c", True),
        ("-c conftest.c main.c", False),
        ("/build/meson-private/tmp1/testfile.c -o /build/meson-private/tmp1/output.exe -Oz", True),
        ("-Oz -c conftest.c real.ii", False),
        ("-Oz -o app conftest.c main.c++", False),
        ("-c main.c", False),
        ("-o conftest conftest.o", False),
        ("-c conftest.c @more", False),
        ("-x c more conftest.c", False),
        ("-xc more conftest.c", False),
        ("/usr/bin/clang -c conftest.c", False),
        ("--real-cc gcc -c conftest.c", False),
        ("", False),
    ],
)
def test_what_is_clearly_a_trial(words, trial):
    assert is_trial(words.split()) == trial
    assert not trial or read_command(words.split()).untouched


def test_a_server_that_was_killed_is_replaced(served):
    for pid in servers(runtime(served)):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not servers(runtime(served)))
    assert served.run("-Oz", "-c", "first.c", "-o", "second.o").returncode == 0
    wait_for(lambda: servers(runtime(served)))
    assert served.run("-Oz", "-c", "first.c", "-o", "third.o").returncode == 0
    assert (served.folder / "second.o").read_bytes() == (served.folder / "third.o").read_bytes()


def test_a_server_goes_when_it_has_nothing_to_do(served):
    for pid in servers(runtime(served)):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not servers(runtime(served)))
    served.run("-Oz", "-c", "first.c", SECONDPASS_SERVER="1")
    served.run("-Oz", "-c", "first.c", SECONDPASS_SERVER="1")  # two that start at once: one lives
    wait_for(lambda: servers(runtime(served)))
    wait_for(lambda: not servers(runtime(served)))
    assert [it.suffix for it in Path(runtime(served), "secondpass").iterdir()] == [".lock"]


def test_ctrl_c_ends_a_served_command(served):
    command = [BIN / "secondpass-cc", "-Oz", "-fconstexpr-steps=2000000000", "-c", served.write("slow.cpp", SLOW)]
    process = subprocess.Popen(hearing_ctrl_c(command), cwd=served.folder, env=served.environment)
    wait_for(lambda: len(servers(runtime(served))) == 2)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    wait_for(lambda: len(servers(runtime(served))) == 1)
    assert not (served.folder / "slow.o").exists()


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_may_enter_has_no_server(build, mode):
    with tempfile.TemporaryDirectory(prefix="run-") as name:
        folder = Path(name, "secondpass")
        folder.mkdir()
        folder.chmod(mode)
        build.write("first.c", SMALL)
        settings = {"XDG_RUNTIME_DIR": name, "SECONDPASS_SERVER": "60"}
        assert build.run("-Oz", "-c", "first.c", **settings).returncode == 0
        assert list(folder.iterdir()) == []


# The report


def reported(build, *options):
    command = [BIN / "secondpass", "report", build.log, *map(str, options)]
    return subprocess.run(command, cwd=build.folder, capture_output=True, text=True, check=False)


def test_the_report_sums_the_log_and_agrees_with_the_objects(build):
    shutil.copy(CODEC, build.folder / "codec.c")
    build.write("small.c", SMALL)
    for _ in range(2):
        assert build.run("-Oz", "-c", "codec.c", "small.c").returncode == 0
    with build.log.open("a") as log:
        log.write('{"source": "a.c", "before": "many"}\n{"source": "a.c", "functions": {"f": [1]}}\nhalf a li')
    found = json.loads(reported(build, "--json").stdout)
    assert [Path(it["source"]).name for it in found["files"]] == ["codec.c", "small.c"]
    assert all(it["cached"] for it in found["files"])
    assert found["damaged_lines"] == 3
    for it in found["files"]:
        image = Path(it["output"]).read_bytes()
        assert it["text_bytes"]["best"] == objects.text_size(image)
        assert {name: size["best"] for name, size in it["functions"].items() if size["best"]} == objects.function_sizes(
            image
        )
    assert found["text_bytes"]["best"] == sum(it["text_bytes"]["best"] for it in found["files"])
    table = reported(build, "--html", build.folder / "page.html").stdout
    assert "codec.c" in table and "2 files" in table and "3 lines of the log" in table
    page = (build.folder / "page.html").read_text()
    assert "compress" in page and "http" not in page
    assert ">codec.c<" in page and page.count(str(build.folder)) == 1  # said once, not in every row


def test_text_is_what_llvm_size_calls_text(build):
    size = find_tool("llvm-size")
    assert by_clang(build, "-Oz", "-c", CODEC, "-o", "codec.o").returncode == 0
    line = subprocess.run([size, build.folder / "codec.o"], capture_output=True, text=True, check=True).stdout
    assert int(line.splitlines()[1].split()[0]) == objects.text_size((build.folder / "codec.o").read_bytes())


def test_a_report_takes_names_of_any_bytes(build):
    name = os.fsdecode(b"a\xe9.c")
    build.write(name, SMALL)
    assert build.run("-Oz", "-c", name).returncode == 0
    assert build.shell("secondpass report build.log --html page.html > said").returncode == 0
    assert "\\udce9.c" in (build.folder / "page.html").read_text()


@pytest.mark.parametrize("text", [None, "", "not a record\n", '{"source": 1, "what": 2}\n'])
def test_a_log_without_records_is_refused_in_one_line(build, text):
    if text is not None:
        build.log.write_text(text)
    run = reported(build)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and str(build.log) in run.stderr


# Build systems

MAIN = '#include <stdio.h>\nint twice(int);\nint main(void) { printf("%d\\n", twice(21)); return 0; }\n'


@pytest.fixture
def project(build):
    build.write("twice.c", SMALL)
    build.write("main.c", MAIN)
    return build


def built(project, line):
    run = project.shell(line)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "warning" not in run.stderr
    assert {Path(it["source"]).name for it in project.records()} >= {"twice.c", "main.c"}
    assert run.stdout.endswith("42\n")


@needs_linker
@pytest.mark.parametrize("how", ["CC in the environment", "a launcher", "a compiler by name"])
def test_a_cmake_project(project, how):
    if not shutil.which("cmake", path=project.environment["PATH"]):
        pytest.skip("needs cmake and ninja: pip install secondpass[dev]")
    project.write(
        "CMakeLists.txt",
        "cmake_minimum_required(VERSION 3.20)\nproject(answer C)\nadd_executable(answer main.c twice.c)\n",
    )
    options = {
        "CC in the environment": "",
        "a launcher": f"-DCMAKE_C_COMPILER={find_clang()} -DCMAKE_C_COMPILER_LAUNCHER='secondpass;cc'",
        "a compiler by name": f"-DCMAKE_C_COMPILER={BIN / 'secondpass-cc'}",
    }[how]
    configure = f"cmake -G Ninja -S . -B out -DCMAKE_BUILD_TYPE=MinSizeRel {options} >&2"
    built(project, f"{configure} && cmake --build out >&2 && out/answer")


@needs_linker
def test_a_meson_project(project):
    if not shutil.which("meson", path=project.environment["PATH"]):
        pytest.skip("needs meson and ninja: pip install secondpass[dev]")
    project.write("meson.build", "project('answer', 'c')\nexecutable('answer', 'main.c', 'twice.c')\n")
    built(project, "meson setup out --buildtype=minsize >&2 && meson compile -C out >&2 && out/answer")


@needs_linker
def test_an_autotools_project(project):
    if not shutil.which("automake") or not shutil.which("autoconf"):
        pytest.skip("needs autotools: apt-get install autoconf automake")
    project.write(
        "configure.ac",
        "AC_INIT([answer], [1])\nAM_INIT_AUTOMAKE([foreign])\nAC_PROG_CC\nAC_CONFIG_FILES([Makefile])\nAC_OUTPUT\n",
    )
    project.write("Makefile.am", "bin_PROGRAMS = answer\nanswer_SOURCES = main.c twice.c\n")
    built(project, "autoreconf -i >&2 && ./configure CFLAGS=-Os >&2 && make -j2 >&2 && ./answer")
