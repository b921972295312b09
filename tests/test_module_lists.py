"""Lists on a whole module: the smallest results hold, and a few lists speak for the others on each function."""

from dataclasses import replace

import pytest
from compiling import CODEC, EXAMPLES, PROGRAM, example_id, unoptimised

from secondpass.llvm.jobs import Job, Status
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.worker import measured_sizes
from secondpass.module_lists import Tried, candidates, size_of, try_lists
from secondpass.optimize import optimize
from secondpass.prompt import Objective
from secondpass.strategies.single import Feedback
from secondpass.tuner.coreset import coreset

# Without what depends on where memory lies, so that two processes agree.
LISTS = {objective: [it for it in coreset(objective, 16) if "gvn-sink" not in it.words][:10] for objective in Objective}
OBJECTIVES = pytest.mark.parametrize("objective", list(Objective), ids=str)
COROUTINE = "define void @f() presplitcoroutine { ret void }"
OZ = PassList.of("default<O2>")


class Recorder(Sandbox):
    """Keeps the jobs that it runs; a result whose size is spoiled does not compile again."""

    def __init__(self):
        super().__init__(1)
        self.jobs = []
        self.spoiled = None

    def run(self, jobs):
        for job, outcomes in super().run(self._kept(jobs)):
            broken = [replace(it, status=Status.BROKEN) if it.instructions == self.spoiled else it for it in outcomes]
            yield job, broken if job.lists == ("",) else outcomes

    def _kept(self, jobs):
        for job in jobs:
            self.jobs.append(job)
            yield job

    @property
    def lists(self):
        return [words for job in self.jobs for words in job.lists]


@pytest.fixture
def sandbox():
    with Recorder() as pool:
        yield pool


def tried(text, objective, sandbox, wanted=3, lists=None, links=lambda _: True, is_over=lambda: False, report=None):
    """What lists do to a module, with -Oz's outcome."""
    proposed = {it: f"list {at}" for at, it in enumerate(LISTS[objective] if lists is None else lists)}
    with Module.parse(text) as module:
        first, bitcode = candidates(module, proposed), module.to_bitcode()
    (oz,) = sandbox.compile(Job(bitcode, (load().oz_pipeline,), functions=True, bytes=True, keep=True))
    oz = replace(oz, seconds=0.01)  # however slow the machine: sixteen lists at a time
    sandbox.jobs.clear()
    report = report or (lambda *_: None)
    return oz, try_lists(first, bitcode, oz, objective, sandbox, links, is_over, report, wanted)


@OBJECTIVES
@pytest.mark.parametrize("path", EXAMPLES, ids=example_id)
def test_the_smallest_are_what_their_lists_make_of_the_module(path, objective, sandbox):
    text = unoptimised(path)
    oz, found = tried(text, objective, sandbox)
    sizes = [size_of(outcome, objective) for outcome, _ in found.smallest]
    assert sizes == sorted(set(sizes))
    assert all(size < size_of(oz, objective) for size in sizes)
    assert sizes or path not in (CODEC, PROGRAM[0])
    for outcome, candidate in found.smallest:
        with Module.parse(text) as module, Module.parse(outcome.bitcode) as kept:
            module.run(candidate.passes)
            assert (module.instruction_count, module.native_size) == (outcome.instructions, outcome.bytes)
            assert (kept.instruction_count, kept.native_size) == (outcome.instructions, outcome.bytes)


@OBJECTIVES
def test_more_results_begin_with_the_fewer(objective, sandbox):
    _, few = tried(unoptimised(CODEC), objective, sandbox, wanted=1)
    _, many = tried(unoptimised(CODEC), objective, sandbox, wanted=5)
    assert len(few.smallest) == 1 < len(many.smallest) <= 5
    assert few.smallest[0][1] == many.smallest[0][1]


def test_what_does_not_link_is_none_of_the_smallest(sandbox):
    _, everything = tried(unoptimised(CODEC), Objective.BYTES, sandbox, 20)
    best = everything.smallest[0][0].bytes
    _, rest = tried(unoptimised(CODEC), Objective.BYTES, sandbox, 20, links=lambda made: made.bytes != best)
    assert [it.bytes for it, _ in rest.smallest] == [it.bytes for it, _ in everything.smallest[1:]]
    _, none = tried(unoptimised(CODEC), Objective.BYTES, sandbox, 20, links=lambda _: False)
    assert none.smallest == []


def test_where_the_smallest_cannot_be_compiled_the_next_has_its_turn(sandbox):
    _, found = tried(unoptimised(CODEC), Objective.INSTRUCTIONS, sandbox, wanted=2)
    sandbox.spoiled = found.smallest[0][0].instructions
    _, again = tried(unoptimised(CODEC), Objective.INSTRUCTIONS, sandbox, wanted=1)
    assert [it for _, it in again.smallest] == [found.smallest[1][1]]


def test_the_best_three_are_tried_after_oz_too(sandbox):
    told = []
    _, found = tried(unoptimised(CODEC), Objective.BYTES, sandbox, report=lambda *it: told.append(it))
    assert told[-1] == (13, 13)
    assert sandbox.lists[:10] == list(map(str, LISTS[Objective.BYTES]))
    alone = {}
    with Module.parse(unoptimised(CODEC)) as module:
        for passes in found.functions:
            with module.clone() as copy:
                copy.run(passes)
                alone[passes] = copy.native_size
    best = sorted(LISTS[Objective.BYTES], key=lambda it: (alone[it], len(it)))[:3]
    assert sandbox.lists[10:] == [str(OZ + it) for it in best]


def test_a_coroutine_has_no_list_without_oz_and_each_after_it_once(sandbox):
    _, found = tried(COROUTINE, Objective.BYTES, sandbox)
    assert sandbox.lists == [str(OZ + it) for it in LISTS[Objective.BYTES]]
    assert found.untried == 0


@pytest.mark.parametrize(("chunks", "tried_lists"), [(0, 0), (1, 16), (2, 20)])
def test_lists_for_which_there_is_no_time_are_counted(chunks, tried_lists, sandbox):
    """Time is looked at between chunks of sixteen lists."""
    looks = iter([False] * chunks)
    lists = [it for it in coreset(Objective.BYTES, 50) if "mergefunc" not in it.words][:20]
    _, found = tried(unoptimised(CODEC), Objective.BYTES, sandbox, lists=lists, is_over=lambda: next(looks, True))
    assert len(found.functions) == len(sandbox.lists) == tried_lists
    assert found.untried == 20 + (3 if tried_lists else 0) - tried_lists


def test_without_lists_there_is_nothing_to_try(sandbox):
    told = []
    _, found = tried(unoptimised(CODEC), Objective.BYTES, sandbox, lists=[], report=lambda *it: told.append(it))
    assert (found, told, sandbox.jobs) == (Tried([], {}, 0), [], [])


@OBJECTIVES
def test_of_lists_that_leave_as_much_of_a_function_the_first_is_promising(objective, sandbox):
    """The least first, and no other list left less of it in the whole module."""
    lists = LISTS[objective]
    _, found = tried(unoptimised(PROGRAM[0]), objective, sandbox)
    names = {name for sizes in found.functions.values() for name in sizes}
    assert len(names) > 3
    fewer = 0
    for name in names:
        left = {it: found.functions[it][name] for it in lists if name in found.functions[it]}
        smallest = sorted(set(left.values()))[:4]
        first = [next(it for it in lists if left.get(it) == size) for size in smallest]
        assert found.promising(name, lists) == first + [it for it in lists if it not in left]
        fewer += len(smallest) < len(set(left))
    assert fewer


def test_a_list_that_the_module_has_not_seen_is_promising():
    seen, other = PassList.of("sroa"), PassList.of("gvn")
    found = Tried([], {seen: {"f": 7}}, 0)
    assert found.promising("f", [other, seen]) == [seen, other]
    assert found.promising("gone", [seen, other]) == [seen, other]


def test_functions_are_tried_apart_with_fewer_lists(sandbox):
    """And always with -Oz and the module's best list."""
    lists = coreset(Objective.BYTES, 25)
    optimize(PROGRAM[0], None, Feedback(), sandbox, objective=Objective.BYTES, coreset=lists)
    apart = [job for job in sandbox.jobs if job.bytes and not job.functions]
    assert len(apart) > 3
    assert all(job.lists[0].startswith(str(OZ)) for job in apart)
    assert any(2 <= len(job.lists) <= 6 for job in apart)


def test_what_is_alike_is_measured_once():
    """Native code takes longer than most lists."""
    measured = {}
    job = Job(b"", ("", ""), functions=True, bytes=True)
    with Module.parse(unoptimised(CODEC)) as module:
        first = measured_sizes(module, job, measured)
        with module.clone() as copy:
            assert measured_sizes(copy, job, measured) is first
            copy.run("function(mem2reg)")
            assert measured_sizes(copy, job, measured) == copy.native_sizes() != first
    assert len(measured) == 2


def test_what_one_job_measured_is_not_another_jobs(sandbox):
    text, lists = unoptimised(CODEC), ("", "", "function(mem2reg)")
    with Module.parse(text) as module:
        sizes = [module.native_size, module.native_size]
        module.run(lists[2])
        sizes.append(module.native_size)
    for functions in (False, True, False):
        outcomes = sandbox.compile(Job(text, lists, functions=functions, bytes=True))
        assert [it.bytes for it in outcomes] == sizes
        assert [bool(it.functions) for it in outcomes] == [functions] * 3
