"""Options of code generation: the real clang tries them, the smallest object wins."""

import subprocess

import pytest
from compiling import CODEC

from secondpass.driver.codegen import refusal, shipped, smallest, words_of
from secondpass.errors import ToolchainError
from secondpass.llvm import objects
from secondpass.llvm.toolchain import find_clang

LARGER = ("-optimize-regalloc=false",)
SMALLER = ("-apply-ext-tsp-for-size", "-disable-machine-licm")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "codec.bc"
    subprocess.run([find_clang(), "-Oz", "-c", "-emit-llvm", CODEC, "-o", path], check=True)
    return path


@pytest.fixture
def generate(codec):
    """Makes the object, and remembers what it was asked for."""
    asked = []

    def generate(options):
        asked.append(options)
        made = codec.with_suffix(".o")
        command = [find_clang(), "-Oz", "-c", *words_of(options), codec, "-o", made]
        run = subprocess.run(command, capture_output=True, check=False)
        if run.returncode:
            raise refusal(run.stderr.decode())
        return made.read_bytes()

    generate.asked = asked
    return generate


def test_the_smallest_object_is_taken_with_its_options(generate):
    plain = smallest(generate, [])
    assert plain.options == () and plain.text == objects.text_size(plain.image)
    made = smallest(generate, [LARGER, SMALLER, LARGER])
    assert made.options == SMALLER and made.text < plain.text
    assert generate.asked == [(), (), LARGER, SMALLER]  # the same set once


def test_an_option_that_clang_does_not_know_is_left_out_of_all_sets(generate):
    unknown = "-no-such-option=2", "-nor-this"
    made = smallest(generate, [unknown[:1], (unknown[0], *SMALLER, unknown[1]), (*LARGER, unknown[1])])
    assert made.options == SMALLER
    assert generate.asked == [(), unknown[:1], (*SMALLER, unknown[1]), SMALLER, LARGER]


def test_a_set_that_clang_cannot_do_is_passed_over(generate):
    made = smallest(generate, [("-split-spill-mode=nonsense",), SMALLER])
    assert made.options == SMALLER
    with pytest.raises(ToolchainError, match=r"step of ours: .*Cannot find option named 'nonsense'"):
        generate(("-split-spill-mode=nonsense",))


def test_what_the_command_line_sets_stays(generate):
    made = smallest(generate, [("-regalloc=basic", *SMALLER)], ["-mllvm", "-regalloc=greedy", "-g"])
    assert made.options == SMALLER


def test_nothing_is_tried_when_the_time_is_over(generate):
    made = smallest(generate, [SMALLER, LARGER], is_over=lambda: True)
    assert (made.options, made.untried) == ((), 2)
    assert generate.asked == [()]
    times = iter([False, True])
    made = smallest(generate, [SMALLER, LARGER], is_over=lambda: next(times))
    assert (made.options, made.untried) == (SMALLER, 1)


def test_the_bundled_clang_takes_what_ships(generate):
    assert generate(())
    for options in shipped():
        assert len(set(options)) == len(options) > 0
        assert generate(options)  # an option that is not known raises
