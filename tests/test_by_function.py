"""A list for each function: smaller than any list for the whole module, and the program still does what it did."""

import math
from pathlib import Path
from statistics import median

import pytest
from compiling import CODEC, CODEC_CHECK, PROGRAM, linked_output, needs_linker, unoptimised, unoptimised_text

from secondpass.by_function import by_function
from secondpass.llvm import objects
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset

OZ = PassList.of(load().oz_pipeline)
SORTING = """
struct Item { int key; short rank; bool before(const Item &other) const { return key < other.key; } };
template <class T> inline void exchange(T &a, T &b) { T c = a; a = b; b = c; }
template <class T> inline void order(T &a, T &b) { if (b.before(a)) exchange(a, b); }
template <class T> inline void order(T &a, T &b, T &c) { order(a, b); order(b, c); order(a, b); }
void sort(Item *items) { order(items[0], items[1], items[2]); }
int median(Item *items) { Item copy[3] = {items[0], items[1], items[2]}; sort(copy); return copy[1].key; }
"""


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as pool:
        yield pool


def at_oz(text, sandbox):
    (outcome,) = sandbox.compile(Job(text.encode(), (str(OZ),), functions=True, bytes=True))
    return outcome


def assembled(text, lists, sandbox, objective=Objective.BYTES, left=lambda: math.inf):
    with Module.parse(text) as module:
        names, bitcode = [it.name for it in module.functions()], module.to_bitcode()
    kept = {it.name for it in at_oz(text, sandbox).functions}
    choices = dict.fromkeys(names, lists)
    return by_function(bitcode, choices, kept, objective, sandbox, lambda made: True, left, lambda done, total: None)


def object_file(made, path: Path) -> Path:
    with Module.parse(made.outcome.bitcode) as module:
        path.write_bytes(module.emit("obj"))
    return path


@needs_linker
@pytest.mark.parametrize("objective", list(Objective))
def test_the_codec_is_smaller_by_a_twentieth_and_computes_the_same(tmp_path, sandbox, objective):
    text = unoptimised(CODEC)
    lists, oz = [OZ, *coreset(objective, 20)], at_oz(text, sandbox)
    made = assembled(text, lists, sandbox, objective)
    sizes = {
        Objective.BYTES: (made.outcome.bytes, oz.bytes),
        Objective.INSTRUCTIONS: (made.outcome.instructions, oz.instructions),
    }
    ours, theirs = sizes[objective]
    assert ours < theirs * 0.95
    assert len(set(made.lists.values())) > 3
    expected = linked_output(tmp_path, "-O1", CODEC_CHECK, CODEC)
    assert linked_output(tmp_path, "-O1", CODEC_CHECK, object_file(made, tmp_path / "codec.o")) == expected


@needs_linker
def test_a_program_of_several_files_still_prints_what_it_did(tmp_path, sandbox, golden_program):
    objects = []
    for path in PROGRAM:
        made = assembled(unoptimised(path), [OZ, *coreset(Objective.BYTES, 20)], sandbox)
        objects.append(object_file(made, tmp_path / f"{path.stem}.o"))
    assert linked_output(tmp_path, *objects) == golden_program


def test_debug_information_changes_no_choice(sandbox):
    lists = [OZ, *coreset(Objective.BYTES, 10)]
    plain, debug = (assembled(unoptimised(CODEC, *flags), lists, sandbox) for flags in ((), ("-g",)))
    assert debug.outcome.bytes == plain.outcome.bytes
    assert debug.lists == plain.lists


def test_when_the_time_is_over_the_others_get_their_first_list(sandbox):
    lists = [OZ, PassList.of("sroa")]
    seconds = iter([60.0] * 8)  # at the start, then for one function after the other
    made = assembled(unoptimised(CODEC), lists[::-1], sandbox, left=lambda: next(seconds, 0.0))
    assert OZ in made.lists.values() and made.untried
    assert list(made.lists.values()).count(lists[1]) > len(made.lists) / 2
    assert assembled(unoptimised(CODEC), lists, sandbox, left=lambda: 0.0) is None


class Slow:
    """A sandbox in which a list takes a second for each thousand bytes, by a clock of its own."""

    def __init__(self, sandbox):
        self.sandbox, self.seconds, self.lists = sandbox, 0.0, {}

    def compile(self, job):
        return self.sandbox.compile(job)

    def run(self, jobs):
        for job, outcomes in self.sandbox.run(jobs):
            self.lists.setdefault(job.name, len(job.lists))  # when the best is made again, it is one
            self.seconds += len(outcomes) * len(job.module) / 1000
            yield job, outcomes


def test_where_there_is_no_time_for_all_lists_every_function_has_as_many(sandbox):
    lists = [OZ, *coreset(Objective.BYTES, 19)]
    slow = Slow(sandbox)
    made = assembled(unoptimised(CODEC), lists, slow)
    assert made.untried == 0 and set(slow.lists.values()) == {20}
    needed, slow = slow.seconds, Slow(sandbox)
    enough = assembled(unoptimised(CODEC), lists, slow, left=lambda: 1.2 * needed - slow.seconds)
    assert enough.untried == 0
    slow = Slow(sandbox)
    half = assembled(unoptimised(CODEC), lists, slow, left=lambda: needed / 2 - slow.seconds)
    assert half.untried == sum(20 - it for it in slow.lists.values())
    assert slow.seconds < 0.6 * needed
    later = [slow.lists[name] for name in half.lists][10:]
    assert 5 <= median(later) <= 15
    oz = at_oz(unoptimised(CODEC), sandbox).bytes
    assert made.outcome.bytes <= half.outcome.bytes < oz - 0.3 * (oz - made.outcome.bytes)


def test_with_oz_alone_it_is_what_oz_makes_of_the_module(sandbox):
    oz = at_oz(unoptimised(CODEC), sandbox)
    made = assembled(unoptimised(CODEC), [OZ], sandbox)
    assert made.outcome.bytes <= oz.bytes * 1.01
    assert {it.name for it in made.outcome.functions} == {it.name for it in oz.functions}


def test_a_list_that_inlines_nothing_pays_for_the_functions_it_keeps(sandbox):
    text = unoptimised_text(SORTING, language="c++")
    small = PassList.of("sroa", "instcombine<no-verify-fixpoint>", "simplifycfg")
    made, oz = assembled(text, [small, OZ], sandbox), at_oz(text, sandbox)
    assert {it.name for it in made.outcome.functions} == {it.name for it in oz.functions}
    assert made.outcome.bytes <= oz.bytes


def test_a_table_that_nobody_writes_is_constant_and_holds_distances(tmp_path, sandbox):
    words = "".join(f'"{word}",' for word in ("none", "some", "many", "all", "more", "less", "first", "last"))
    text = unoptimised_text(
        f"static const char *names[] = {{{words}}}; const char *name(unsigned k) {{ return names[k]; }}", "-fPIC"
    )
    made, oz = assembled(text, [PassList.of("sroa"), OZ], sandbox), at_oz(text, sandbox)
    assert made.outcome.bytes <= oz.bytes
    image = object_file(made, tmp_path / "names.o").read_bytes()
    assert objects.loaded_size(image) == objects.text_size(image)  # no data, and no relocation in data


def test_a_function_without_lists_stays_as_it_is(sandbox):
    made = assembled("define i32 @f() { ret i32 1 }", [], sandbox)
    assert not made.lists
    assert made.outcome.instructions == 1
