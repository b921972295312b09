"""Options of code generation: the real clang tries them, the smallest object wins."""

import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from compiling import CODEC, unoptimised_text

from secondpass.driver.codegen import changed, refusal, smallest, unsuitable, usual, words_of
from secondpass.driver.machines import learned, learned_for
from secondpass.driver.smaller import Smaller, apart, smaller
from secondpass.driver.summary import described
from secondpass.errors import InputError, OzError, SandboxError, ToolchainError
from secondpass.llvm import objects
from secondpass.llvm.forked import emitted
from secondpass.llvm.module import Module
from secondpass.llvm.toolchain import find_clang


@pytest.mark.parametrize(
    ("source", "flags", "option"),
    [
        ("int f(int *x) { return *x; } int (*g)(int *) = f;", ["-fcf-protection=branch"], "enable-machine-outliner"),
        ("void *b[5]; int f(int x) { return __builtin_setjmp(b) ? x : 0; }", [], "regalloc"),
        ("__attribute__((cold)) void f(void) {}", [], "disable-cgp"),
    ],
)
def test_options_that_a_module_cannot_have_are_named(source, flags, option):
    with Module.parse(unoptimised_text(source, *flags)) as module, Module.parse(unoptimised_text("int f;")) as any_:
        assert any(word.startswith(f"-{option}") for word in (*learned_for(X86).first, *learned_for(X86).changes))
        assert unsuitable(module, placed=module.has_attribute("cold")) == {option}
        assert not unsuitable(any_, placed=False)


X86 = "x86_64-unknown-linux-gnu"
FIRST = learned_for(X86).first
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
    plain = smallest(generate, modules)
    assert plain.options == () and plain.text == objects.text_size(plain.image)
    assert smallest(generate, modules, LARGER) == plain
    made = smallest(generate, modules, SMALLER)
    assert made.options == SMALLER and made.text < plain.text
    assert generate.asked == [(), (), LARGER, (), SMALLER]


def test_a_change_of_one_option_stays_where_it_makes_the_object_smaller(generate, modules):
    only = smallest(generate, modules, SMALLER[:1])
    generate.asked.clear()
    wanted = [SMALLER[1], *LARGER, "-no-such-option", *LARGER, "-split-spill-mode=nonsense"]
    made = smallest(generate, modules, SMALLER[:1], wanted)
    assert made.options == SMALLER and made.text < only.text
    assert made.image == generate(modules[0], SMALLER)
    assert generate.asked == [
        (),
        SMALLER[:1],
        SMALLER,
        (*SMALLER, *LARGER),
        (*SMALLER, "-no-such-option"),
        (*SMALLER, "-split-spill-mode=nonsense"),  # LARGER is not tried again
        SMALLER,
    ]


def test_a_change_takes_an_option_out_where_that_is_smaller():
    sizes = {"": 20, "xy": 15, "x": 10, "xz": 10}
    asked = []

    def generate(_, options):
        asked.append("".join(it[1] for it in options))
        return object_of(sizes[asked[-1]])

    made = smallest(generate, ["a"], ("-x", "-y"), ["-y", "-z", "-x", "-y"])
    assert (made.text, made.options) == (10, ("-x",))
    assert asked == ["", "xy", "x", "xz"]  # neither nothing nor both again


def test_a_change_takes_an_option_out_or_puts_it_in_the_place_of_its_other_value():
    assert changed(("-a=1", "-b"), "-c") == ("-a=1", "-b", "-c")
    assert changed(("-a=1", "-b"), "-b") == ("-a=1",)
    assert changed(("-a=1", "-b"), "-a=2") == ("-b", "-a=2")


def test_options_are_described_by_what_differs_from_the_usual_ones():
    assert described(()) == ""
    for it in learned().values():
        assert described(it.first) == "usual"
        assert described((*it.first[1:], "-x=1")) == f"usual; with -x=1; without {it.first[0]}"


def test_an_option_that_clang_does_not_know_is_left_out_of_all_that_follows(generate, modules):
    unknown = "-no-such-option=2", "-nor-this"
    made = smallest(generate, modules, (unknown[0], SMALLER[0], unknown[1]), [*unknown, SMALLER[1]])
    assert made.options == SMALLER
    assert generate.asked == [(), (unknown[0], SMALLER[0], unknown[1]), SMALLER[:1], SMALLER]


def test_options_that_clang_cannot_do_are_passed_over(generate, modules):
    made = smallest(generate, modules, ("-split-spill-mode=nonsense",), SMALLER)
    assert made.options == SMALLER
    with pytest.raises(ToolchainError, match=r"step of ours: .*Cannot find option named 'nonsense'"):
        generate(modules[0], ("-split-spill-mode=nonsense",))


def test_options_that_are_left_out_stay_as_they_are(generate, modules):
    made = smallest(generate, modules, ("-regalloc=basic", SMALLER[0]), ["-regalloc=fast", SMALLER[1]], {"regalloc"})
    assert made.options == SMALLER
    assert generate.asked == [(), SMALLER[:1], SMALLER]


def test_lists_are_compared_with_what_suits_most_modules_but_for_what_the_command_sets():
    assert usual(X86) == FIRST and not any("outline" in it for it in FIRST)
    for given in (
        ["-mllvm", "-apply-ext-tsp-for-size=false", "-g"],
        ["-mllvm=-apply-ext-tsp-for-size=false"],
        ["-Xclang", "-mllvm", "-Xclang", "-apply-ext-tsp-for-size"],
    ):
        assert set(FIRST) - set(usual(X86, given)) == {"-apply-ext-tsp-for-size"}


_SIZES = """
import sys
from pathlib import Path
from secondpass.llvm import objects
from secondpass.llvm.forked import emitted
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.jobs import Job
from secondpass.llvm.sandbox import Sandbox

bitcode, options = Path(sys.argv[1]).read_bytes(), sys.argv[2:]

def measured(**how):
    with Sandbox(1, options=options, **how) as sandbox:
        return sandbox.compile(Job(bitcode, ("",), bytes=True))[0].bytes

with Module.parse(bitcode) as module:
    print(measured(fork=True), measured(), measured(reproducible=True), objects.code_size(emitted(module, options, 60)))
    print(module.native_size)
    load().set_options(options)
with Module.parse(bitcode) as module:
    print(module.native_size)
"""


def test_options_of_a_library_hold_in_its_process_and_where_they_are_asked_for(modules, tmp_path):
    module = tmp_path / "module.bc"
    module.write_bytes(modules[0])

    def size(*options):
        command = [sys.executable, "-c", _SIZES, module, *options]
        run = subprocess.run(command, capture_output=True, check=True, text=True)
        apart, before, after = (set(map(int, line.split())) for line in run.stdout.splitlines())
        assert apart == after and before == {plain}
        return int(*apart)

    plain = Module.parse(modules[0]).native_size
    assert size() == plain
    assert size(*SMALLER) < plain < size(*LARGER)
    assert size("-no-such-option", *SMALLER, "-nor-this=2") == size(*SMALLER)


def test_code_generation_in_a_fork_costs_no_more_than_the_object(modules):
    with Module.parse(modules[0]) as module:
        assert emitted(module, ["-stop-after=nonsense"], 60) is None  # LLVM ends its process
        assert emitted(module, [], 1e-6) is None
        assert emitted(module, [], 60) == module.emit("obj")


def test_the_first_options_choose_the_module_on_which_others_are_tried():
    sizes = {"a": {"": 20, "x": 18}, "b": {"x": 10, "xy": 12}, "c": {"x": 16}}
    asked = []

    def generate(module, options):
        asked.append((module, options))
        return object_of(sizes[module]["".join(it[1] for it in options)])

    made = smallest(generate, ["a", "b", "c"], ("-x",), ["-y"])
    assert (made.text, made.options) == (10, ("-x",))
    assert asked == [("a", ()), *((it, ("-x",)) for it in "abc"), ("b", ("-x", "-y"))]
    made = smallest(generate, ["a", "b", "c"], ("-x",), fits=lambda image: objects.text_size(image) != 10)
    assert made.text == 16
    made = smallest(generate, ["a"], fits=lambda _: False)
    assert made.text == 20


def test_changes_are_tried_on_the_module_with_the_attributes_that_suit_it():
    sizes = {"a": {"": 20, "x": 18}, "b": {"x": 10}, "b+": {"x": 9, "xy": 8}}
    asked, suited = [], []

    def generate(module, options):
        asked.append((module, "".join(it[1] for it in options)))
        return object_of(sizes[module][asked[-1][1]])

    def suit(module, options):
        suited.append((module, options))
        return f"{module}+"

    made = smallest(generate, ["a", "b"], ("-x",), ["-y"], suit=suit)
    assert (made.text, made.options, suited) == (8, ("-x", "-y"), [("b", ("-x",))])
    assert asked == [("a", ""), ("a", "x"), ("b", "x"), ("b+", "x"), ("b+", "xy")]
    sizes["a"]["x"], sizes["a+"] = 22, {"": 21}
    made = smallest(generate, ["a"], ("-x",), suit=suit)
    assert (made.text, made.options, suited[1:]) == (20, (), [("a", ())])
    asked.clear()
    smallest(generate, ["a"], ("-x",), is_over=lambda: True, suit=suit)
    assert asked == [("a", ""), ("a", "x")]


@pytest.mark.parametrize(
    ("more", "tried", "by_quick", "text"),
    [
        ({}, ["", "x", "xyz"], ["x", "xy", "xyz"], 10),
        ({"xy": 9}, ["", "x", "xz"], ["x", "xy", "xz"], 11),  # wrong of a change: something smaller is missed
        ({"xy": -3, "xyz": 9}, ["", "x", "xy"], ["x", "xy", "xyz"], 12),
        ({"x": 1}, ["", "x", "xy", "xyz"], ["x"], 10),  # other code from the start
        (None, ["", "x", "xy", "xyz"], ["x"], 10),
    ],
)
def test_changes_are_tried_by_what_is_quick_as_far_as_it_makes_the_same(more, tried, by_quick, text):
    sizes = {"": 20, "x": 18, "xy": 12, "xz": 11, "xyz": 10}
    asked, quickly = [], []

    def generate(_, options):
        asked.append("".join(it[1] for it in options))
        return object_of(sizes[asked[-1]])

    def quick(_, options):
        quickly.append("".join(it[1] for it in options))
        if more is None:
            raise ToolchainError("no libLLVM for this target")
        return object_of(sizes[quickly[-1]] + more.get(quickly[-1], 0))

    made = smallest(generate, ["a"], ("-x",), ["-y", "-z"], quick=quick)
    assert (asked, quickly, made.text, made.untried) == (tried, by_quick, text, 0)


def test_where_what_is_best_by_a_quick_trial_is_not_smaller_in_earnest_the_one_before_is_taken():
    sizes = {"": 20, "x": 18, "xy": 13, "xyz": 19}
    asked = []

    def generate(_, options):
        asked.append("".join(it[1] for it in options))
        if asked[-1] == "xyzw":
            raise ToolchainError("clang takes longer")
        return object_of(sizes[asked[-1]])

    def quick(_, options):
        return object_of(19 - len(options))

    made = smallest(generate, ["a"], ("-x",), ["-y", "-z", "-w"], quick=quick)
    assert (asked, made.text, made.options) == (["", "x", "xyzw", "xyz", "xy"], 13, ("-x", "-y"))


def object_of(size):
    """An object with so many bytes of text."""
    command = [find_clang(), "-c", "-x", "assembler", "-", "-o", "-"]
    return subprocess.run(command, input=f".zero {size}".encode(), capture_output=True, check=True).stdout


def test_the_bundled_clang_takes_what_ships(generate, modules):
    changes = learned_for(X86).changes
    assert len(set(changes)) == len(changes) > 20
    for options in (FIRST, *((it,) for it in changes)):
        assert len(set(options)) == len(options) > 0
        assert generate(modules[0], options)  # an option that is not known raises


def test_when_the_time_is_over_the_first_options_are_tried_all_the_same(generate, modules):
    made = smallest(generate, modules, SMALLER, LARGER, is_over=lambda: True)
    assert (made.options, made.untried) == (SMALLER, 1)
    assert generate.asked == [(), SMALLER]
    times = iter([False, True, True])
    made = smallest(generate, [*modules, *modules], SMALLER[:1], SMALLER[1:], is_over=lambda: next(times))
    assert (made.options, made.untried) == (SMALLER[:1], 1)


def test_options_that_keep_clang_busy_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr("secondpass.driver.smaller._PATIENCE", 0.2)
    busy = tmp_path / "clang"
    busy.write_text(f'#!/bin/sh\ncase "$*" in *-mllvm*) exec sleep 60;; esac\nexec {find_clang()} "$@"\n')
    busy.chmod(0o755)
    work = partial(smaller, source=str(CODEC), language="c", optimised="-Oz", level=0, folder=tmp_path)
    made = apart(partial(work, [str(busy)], [], clang_seconds=0.0), codegen=True)
    assert made.options == () and objects.text_size(made.image) > 0


def test_changes_are_tried_without_a_process_of_clang_each(tmp_path, monkeypatch):
    quickly = tmp_path / "quickly"

    def remembered(*arguments):
        with quickly.open("a") as file:
            file.write(f"{arguments[1]}\n")
        return emitted(*arguments)

    monkeypatch.setattr("secondpass.llvm.forked.emitted", remembered)
    log, clang = tmp_path / "log", tmp_path / "clang"
    clang.write_text(f'#!/bin/sh\necho "$*" >> {log}\nexec {find_clang()} "$@"\n')
    clang.chmod(0o755)
    work = partial(smaller, source=str(CODEC), language="c", optimised="-Oz", level=0, folder=tmp_path)
    made = apart(partial(work, [str(clang)], [], clang_seconds=0.1), codegen=True)
    runs = log.read_text().splitlines()
    assert len(set(quickly.read_text().splitlines())) > 20
    assert made.options and " ".join(words_of(made.options)) in runs[-1]
    assert len(runs) <= 6  # IR; no options; the first ones, on two modules and with attributes; the best ones
    plain = apart(partial(work, [str(clang)], [], clang_seconds=0.1), codegen=False)
    assert objects.text_size(made.image) < objects.text_size(plain.image)


def test_where_llvm_fails_with_options_in_force_there_are_none():
    def work(*, codegen):
        if codegen:
            raise OzError("a.bc: LLVM's own -Oz makes nothing of this module: crash")
        return Smaller(b"object", (), "")

    made = apart(work, codegen=True)
    assert (made.image, made.note) == (b"object", "LLVM fails with options of code generation: there are none")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def refused():
    raise InputError("a.bc: it defines no function")


@pytest.mark.parametrize(
    ("fails", "error", "said"),
    [(killed, SandboxError, "optimiser ended with code -9"), (refused, InputError, "defines no function")],
)
def test_what_has_nothing_to_do_with_options_is_not_done_twice(tmp_path, fails, error, said):
    done = tmp_path / "done"

    def work(*, codegen):
        with done.open("a") as file:
            file.write(f"{codegen}\n")
        fails()

    with pytest.raises(error, match=said):
        apart(work, codegen=True)
    assert done.read_text() == "True\n"
