"""Options of code generation: the real clang tries them, the smallest object wins."""

import subprocess
import sys

import pytest
from compiling import CODEC, unoptimised_text

from secondpass.driver.codegen import refusal, shipped, smallest, suits, usual, words_of
from secondpass.errors import ToolchainError
from secondpass.llvm import objects
from secondpass.llvm.module import Module
from secondpass.llvm.toolchain import find_clang


@pytest.mark.parametrize(
    ("source", "flags", "option"),
    [
        ("int f(int *x) { return *x; } int (*g)(int *) = f;", ["-fcf-protection=branch"], "-enable-machine-outliner"),
        ("void *b[5]; int f(int x) { return __builtin_setjmp(b) ? x : 0; }", [], "-regalloc=basic"),
        ("__attribute__((cold)) void f(void) {}", [], "-disable-cgp"),
    ],
)
def test_sets_that_a_module_cannot_have_are_left_out(source, flags, option):
    with Module.parse(unoptimised_text(source, *flags)) as module, Module.parse(unoptimised_text("int f;")) as any_:
        with_it = [it for it in shipped() if any(word.split("=")[0] == option or word == option for word in it)]
        assert with_it
        placed = module.has_attribute("cold")
        assert [it for it in shipped() if not suits(it, module, placed=placed)] == with_it
        assert all(suits(it, any_, placed=False) for it in shipped())


LARGER = ("-optimize-regalloc=false",)
SMALLER = ("-apply-ext-tsp-for-size", "-disable-machine-licm")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "codec.bc"
    subprocess.run([find_clang(), "-Oz", "-c", "-emit-llvm", CODEC, "-o", path], check=True)
    return path


@pytest.fixture
def modules(codec):
    """The one module that most tests are about."""
    return [codec.read_bytes()]


@pytest.fixture
def generate(codec):
    """Makes the object, and remembers with which options it was asked for."""
    asked = []

    def generate(module, options):
        asked.append(options)
        codec.write_bytes(module)
        made = codec.with_suffix(".o")
        command = [find_clang(), "-Oz", "-c", *words_of(options), codec, "-o", made]
        run = subprocess.run(command, capture_output=True, check=False)
        if run.returncode:
            raise refusal(run.stderr.decode())
        return made.read_bytes()

    generate.asked = asked
    return generate


def test_the_smallest_object_is_taken_with_its_options(generate, modules):
    plain = smallest(generate, modules, [])
    assert plain.options == () and plain.text == objects.text_size(plain.image)
    made = smallest(generate, modules, [LARGER, SMALLER, LARGER])
    assert made.options == SMALLER and made.text < plain.text
    assert generate.asked == [(), (), LARGER, SMALLER]  # the same set once


def test_an_option_that_clang_does_not_know_is_left_out_of_all_sets(generate, modules):
    unknown = "-no-such-option=2", "-nor-this"
    made = smallest(generate, modules, [unknown[:1], (unknown[0], *SMALLER, unknown[1]), (*LARGER, unknown[1])])
    assert made.options == SMALLER
    assert generate.asked == [(), unknown[:1], (*SMALLER, unknown[1]), SMALLER, LARGER]


def test_a_set_that_clang_cannot_do_is_passed_over(generate, modules):
    made = smallest(generate, modules, [("-split-spill-mode=nonsense",), SMALLER])
    assert made.options == SMALLER
    with pytest.raises(ToolchainError, match=r"step of ours: .*Cannot find option named 'nonsense'"):
        generate(modules[0], ("-split-spill-mode=nonsense",))


def test_what_the_command_line_sets_stays(generate, modules):
    made = smallest(generate, modules, [("-regalloc=basic", *SMALLER)], ["-mllvm", "-regalloc=greedy", "-g"])
    assert made.options == SMALLER


def test_lists_are_compared_with_usual_options_but_for_the_outliner_and_what_the_command_sets():
    first, options = shipped()[0], usual()
    assert set(first) - set(options) == {"-enable-machine-outliner=always"}
    assert set(options) - set(usual(["-mllvm", "-tail-merge-size=7", "-g"])) == {"-tail-merge-size=1"}


_SIZES = """
import sys
from pathlib import Path
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.jobs import Job
from secondpass.llvm.sandbox import Sandbox

bitcode = Path(sys.argv[1]).read_bytes()
load().set_options(sys.argv[2:])
with Module.parse(bitcode) as module, Sandbox(1, fork=True) as sandbox:
    print(module.native_size, sandbox.compile(Job(bitcode, ("",), bytes=True))[0].bytes)
"""


def test_options_of_a_library_hold_in_its_process_and_in_forks_of_it(modules, tmp_path):
    module = tmp_path / "module.bc"
    module.write_bytes(modules[0])

    def size(*options):
        command = [sys.executable, "-c", _SIZES, module, *options]
        here, forked = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        assert here == forked
        return int(here)

    assert size(*SMALLER) < size() < size(*LARGER)
    assert size("-no-such-option", *SMALLER, "-nor-this=2") == size(*SMALLER)


def test_the_first_set_chooses_a_module_for_the_others_besides_the_first():
    sizes = {"a": (20, 18, 15), "b": (21, 10, 12), "c": (22, 16, 9)}
    asked = []

    def generate(module, options):
        asked.append((module, options))
        return object_of(sizes[module][len(options)])

    made = smallest(generate, ["a", "b", "c"], [("-x",), ("-x", "-y")])
    assert (made.text, made.options) == (10, ("-x",))
    assert asked == [("a", ()), *((it, ("-x",)) for it in "abc"), *((it, ("-x", "-y")) for it in "ba")]
    made = smallest(generate, ["a", "b", "c"], [("-x",)], fits=lambda image: objects.text_size(image) != 10)
    assert made.text == 16
    made = smallest(generate, ["a"], [], fits=lambda _: False)
    assert made.text == 20


def object_of(size):
    """An object with so many bytes of text."""
    command = [find_clang(), "-c", "-x", "assembler", "-", "-o", "-"]
    return subprocess.run(command, input=f".zero {size}".encode(), capture_output=True, check=True).stdout


def test_the_bundled_clang_takes_what_ships(generate, modules):
    assert generate(modules[0], ())
    for options in shipped():
        assert len(set(options)) == len(options) > 0
        assert generate(modules[0], options)  # an option that is not known raises


def test_when_the_time_is_over_the_first_set_is_tried_all_the_same(generate, modules):
    made = smallest(generate, modules, [SMALLER, LARGER], is_over=lambda: True)
    assert (made.options, made.untried) == (SMALLER, 1)
    assert generate.asked == [(), SMALLER]
    times = iter([False, True])
    made = smallest(generate, modules, [SMALLER, LARGER], is_over=lambda: next(times))
    assert (made.options, made.untried) == (SMALLER, 1)
