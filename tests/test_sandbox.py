"""The sandbox: lists that crash, hang or eat memory hurt nobody but themselves. Real ones, real processes."""

import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from compiling import BY_ADDRESS, CODEC, ROOT, unoptimised, unoptimised_text

from secondpass.errors import SandboxError
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY

SMALL = b"""
define i32 @sum(ptr %data, i32 %count) {
entry:
  br label %loop
loop:
  %i = phi i32 [ 0, %entry ], [ %next, %loop ]
  %sum = phi i32 [ 0, %entry ], [ %more, %loop ]
  %at = getelementptr i32, ptr %data, i32 %i
  %x = load i32, ptr %at
  %more = add i32 %sum, %x
  %next = add i32 %i, 1
  %done = icmp uge i32 %next, %count
  br i1 %done, label %exit, label %loop
exit:
  %dead = mul i32 %more, 3
  ret i32 %more
}
"""
CRASH = "trigger-crash-module"
ABORT = "function(licm)"
"""LLVM ends the process with a message: this pass needs another kind of loop manager."""
HANG = f"function({','.join(['newgvn'] * 100_000)})"
"""Minutes of work on `LARGE`, in little memory."""
INVALID = "function(sora)"
BROKEN = "function(trigger-verifier-error)"
CLEAN = "function(dce)"
OTHER = "default<O2>"

LARGE = unoptimised(CODEC).encode()
SECONDS = 30
"""Far more than any list here takes, on a machine however busy, but `HANG`."""


def doubling(depth=30):
    """Functions of which each calls the one before it twice: inlining all of them eats any memory."""
    functions = ["define internal i32 @f0(i32 %x) alwaysinline {\n  %y = mul i32 %x, %x\n  ret i32 %y\n}"]
    for level in range(1, depth):
        functions.append(
            f"define internal i32 @f{level}(i32 %x) alwaysinline {{\n"
            f"  %y = call i32 @f{level - 1}(i32 %x)\n  %z = call i32 @f{level - 1}(i32 %y)\n  ret i32 %z\n}}"
        )
    functions.append(f"define i32 @f(i32 %x) {{\n  %y = call i32 @f{depth - 1}(i32 %x)\n  ret i32 %y\n}}")
    return "\n".join(functions).encode()


@pytest.fixture(scope="module")
def shared():
    """A sandbox that many tests use one after the other: what one did must not be seen by the next."""
    with Sandbox(workers=2, timeout=SECONDS) as sandbox:
        yield sandbox


@pytest.fixture
def fresh():
    with Sandbox(workers=2, timeout=SECONDS) as sandbox:
        yield sandbox


def timeless(outcomes):
    return [replace(outcome, seconds=0.0) for outcome in outcomes]


# What a list does


def test_a_list_is_run_and_counted(shared):
    (outcome,) = shared.compile(Job(SMALL, (CLEAN,)))
    assert replace(outcome, seconds=0.0) == Outcome(Status.OK, instructions=10)


def test_the_empty_list_runs_nothing(shared):
    assert shared.compile(Job(SMALL, ("",)))[0].instructions == 11


def test_a_job_without_lists_has_no_outcomes(shared):
    assert shared.compile(Job(SMALL, ())) == []


def test_each_list_starts_from_the_module_as_it_came(shared):
    outcomes = shared.compile(Job(SMALL, (CLEAN, "", CLEAN, "")))
    assert [outcome.instructions for outcome in outcomes] == [10, 11, 10, 11]


def test_outcomes_are_those_of_the_same_lists_in_this_process(shared):
    lists = tuple(str(PassList.of(entry.text)) for entry in VOCABULARY)
    expected = []
    with Module.parse(LARGE) as module:
        for pipeline in lists:
            with module.clone() as copy:
                copy.run(pipeline)
                expected.append(copy.instruction_count)
    assert [outcome.instructions for outcome in shared.compile(Job(LARGE, lists))] == expected


@pytest.mark.parametrize("fork", [False, True])
def test_results_that_depend_on_addresses_are_always_the_same(fork):
    module = unoptimised_text(BY_ADDRESS)
    passes = "function(sroa,gvn-sink)"
    kept: set[bytes | None] = set()
    for history in range(3):
        lists = [CLEAN, OTHER, passes, *[OTHER] * history, passes]
        with Sandbox(workers=2, fork=fork) as sandbox:
            jobs = [Job(module.encode(), tuple(lists), str(it), keep=True) for it in range(40)]
            kept.update(outcomes[at].bitcode for _, outcomes in sandbox.run(jobs) for at in (2, -1))
    assert len(kept) == 1
    assert None not in kept


def test_functions_are_reported_where_asked_for(shared):
    (outcome,) = shared.compile(Job(SMALL, (CLEAN,), functions=True))
    assert [(it.name, it.instructions, it.bytes) for it in outcome.functions] == [("sum", 10, None)]


def test_bytes_are_reported_where_asked_for(shared):
    (outcome,) = shared.compile(Job(SMALL, (CLEAN,), functions=True, bytes=True))
    assert 0 < outcome.functions[0].bytes <= outcome.bytes


def test_the_result_is_kept_where_asked_for(shared):
    (outcome,) = shared.compile(Job(SMALL, (CLEAN,), keep=True))
    with Module.parse(outcome.bitcode) as module:
        assert module.instruction_count == 10


def test_functions_are_marked_for_size_where_asked_for(shared):
    (outcome,) = shared.compile(Job(SMALL, ("",), mark_for_size=True, keep=True))
    with Module.parse(outcome.bitcode) as module:
        assert "minsize optsize" in module.to_text()


# What a list does wrong


@pytest.mark.parametrize(
    ("pipeline", "status", "message"),
    [
        (CRASH, Status.CRASH, "SIGABRT"),
        ("function(trigger-crash-function)", Status.CRASH, "SIGABRT"),
        (ABORT, Status.CRASH, "LLVM ERROR: LICM requires MemorySSA (loop-mssa) (exit code 1)"),
        (INVALID, Status.INVALID, "pass list 'function(sora)': unknown function pass 'sora'"),
        (BROKEN, Status.BROKEN, "invalid IR: Terminator found in the middle of a basic block!"),
    ],
    ids=["crash in a module pass", "crash in a function pass", "abort", "unknown pass", "broken IR"],
)
def test_a_bad_list_is_the_only_one_that_fails(shared, pipeline, status, message):
    before, bad, after = shared.compile(Job(SMALL, (CLEAN, pipeline, "")))
    assert (bad.status, before.instructions, after.instructions) == (status, 10, 11)
    assert bad.message.startswith(message)


def test_a_list_that_hangs_is_the_only_one_that_fails():
    with Sandbox(workers=2, timeout=1.5) as sandbox:
        before, bad, after = sandbox.compile(Job(LARGE, (CLEAN, HANG, CLEAN)))
    assert (bad.status, bad.message) == (Status.TIMEOUT, "took longer than 1.5 s")
    assert before.ok
    assert timeless([before]) == timeless([after])


def test_a_list_that_eats_memory_is_the_only_one_that_fails():
    with Sandbox(workers=2, timeout=60, memory=1 << 20) as sandbox:
        before, bad, after = sandbox.compile(Job(doubling(), (CLEAN, "always-inline", CLEAN)))
    assert (bad.status, bad.message) == (Status.MEMORY, "took more memory than a worker may have")
    assert before.ok
    assert timeless([before]) == timeless([after])


def test_a_module_that_does_not_parse_is_the_outcome_of_each_of_its_lists(shared):
    outcomes = shared.compile(Job(b"define nothing", (CLEAN, ""), name="bad.ll"))
    assert [(it.status, it.message.split(": error:")[0]) for it in outcomes] == [(Status.INVALID, "bad.ll:1:8")] * 2


def test_messages_are_one_line(shared):
    outcomes = shared.compile(Job(SMALL, (BROKEN, ABORT, INVALID)))
    assert [outcome.message for outcome in outcomes if "\n" in outcome.message or not outcome.message] == []


def test_the_plain_instcombine_on_code_where_it_reaches_no_fixpoint_is_contained(shared):
    # A real list and a real abort: why the vocabulary holds instcombine<no-verify-fixpoint> alone.
    compiler = unoptimised(ROOT / "examples" / "program" / "compile.c").encode()
    plain, other = shared.compile(Job(compiler, ("function(instcombine)", "function(instcombine<no-verify-fixpoint>)")))
    assert (plain.status, other.status) == (Status.CRASH, Status.OK)
    assert "did not reach a fixpoint" in plain.message


def test_only_a_good_outcome_has_numbers(shared):
    for outcome in shared.compile(Job(SMALL, (CRASH, INVALID, BROKEN), functions=True, bytes=True, keep=True)):
        assert replace(outcome, message="", status=Status.OK, seconds=0.0) == Outcome(Status.OK)


# Many lists and jobs


@pytest.fixture(scope="module")
def two_hundred(shared):
    """200 lists for the codec and their outcomes, none of which is a crash."""
    words = [entry.text for entry in VOCABULARY if not entry.text.startswith("default")]
    lists = [str(PassList.of(words[i % len(words)], words[7 * i % len(words)])) for i in range(200)]
    return lists, shared.compile(Job(LARGE, tuple(lists)))


def test_nothing_finished_is_lost_between_crashes(fresh, two_hundred):
    lists, expected = two_hundred
    sprinkled = [CRASH if index % 9 == 4 else pipeline for index, pipeline in enumerate(lists)]
    outcomes = fresh.compile(Job(LARGE, tuple(sprinkled)))
    survivors = [index for index, pipeline in enumerate(sprinkled) if pipeline != CRASH]
    assert timeless(outcomes[index] for index in survivors) == timeless(expected[index] for index in survivors)


def test_every_crash_is_reported_where_it_was(fresh, two_hundred):
    lists, _ = two_hundred
    sprinkled = [CRASH if index % 9 == 4 else pipeline for index, pipeline in enumerate(lists)]
    outcomes = fresh.compile(Job(LARGE, tuple(sprinkled)))
    crashed = [index for index, outcome in enumerate(outcomes) if outcome.status is Status.CRASH]
    assert crashed == [index for index in range(200) if index % 9 == 4]


def test_a_job_of_crashes_alone_ends(fresh):
    outcomes = fresh.compile(Job(SMALL, (CRASH,) * 20))
    assert [outcome.status for outcome in outcomes] == [Status.CRASH] * 20
    assert fresh.deaths == 20


def test_every_job_comes_back_with_its_own_outcomes(fresh):
    jobs = [Job(SMALL, ("", CRASH, CLEAN)[: 1 + i % 3], name=str(i)) for i in range(30)]
    found = {job.name: [it.instructions for it in outcomes] for job, outcomes in fresh.run(iter(jobs))}
    assert found == {str(i): [11, 0, 10][: 1 + i % 3] for i in range(30)}


def test_jobs_are_taken_as_workers_come_free(fresh):
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield Job(SMALL, (CLEAN,))

    for _ in zip(range(10), fresh.run(endless()), strict=False):
        pass
    assert len(taken) < 40


def test_a_list_longer_than_a_socket_holds_goes_through(fresh):
    long = f"function({','.join(['dce'] * 100_000)})"
    outcomes = fresh.compile(Job(SMALL, (long,) * 6))
    assert [outcome.instructions for outcome in outcomes] == [10] * 6


def test_an_error_of_the_job_source_reaches_the_caller(fresh):
    def failing():
        yield Job(SMALL, (CLEAN,))
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(fresh.run(failing()))


def test_leaving_early_leaves_a_sandbox_that_works(fresh):
    for _ in fresh.run(Job(LARGE, (HANG,) if i % 2 else (CLEAN,)) for i in range(8)):
        break
    started = time.monotonic()
    assert [outcome.instructions for outcome in fresh.compile(Job(SMALL, (CLEAN, "")))] == [10, 11]
    assert time.monotonic() - started < SECONDS / 2  # not held up by what was left


def test_a_worker_killed_from_outside_costs_one_list(fresh):
    running = fresh.run([Job(SMALL, ("",)), Job(LARGE, ("default<O2>",) * 12)])
    next(running)
    os.kill(next(iter(fresh._workers)), signal.SIGKILL)
    ((_, outcomes),) = running
    assert [outcome.message for outcome in outcomes if not outcome.ok] == ["SIGKILL"]


def test_two_sandboxes_do_not_disturb_each_other(fresh):
    with Sandbox(workers=1, timeout=SECONDS) as other:
        ours, theirs = fresh.run([Job(SMALL, (CLEAN, CRASH))] * 4), other.run([Job(SMALL, (CRASH, ""))] * 4)
        pairs = [(a[1][0].instructions, b[1][1].instructions) for a, b in zip(ours, theirs, strict=True)]
    assert pairs == [(10, 11)] * 4


def test_a_list_that_depends_on_addresses_may_die_too(fresh):
    by_address, dying = "function(sroa,gvn-sink)", f"function(sroa,gvn-sink),{CRASH}"
    lists = [by_address] * 10 + [dying, by_address, "function(gvn-sink,sora)"]
    outcomes = fresh.compile(Job(SMALL, tuple(lists)))
    assert [it.status for it in outcomes] == [Status.OK] * 10 + [Status.CRASH, Status.OK, Status.INVALID]
    assert len(set(timeless(it for it in outcomes if it.ok))) == 1


HANGING_EXIT = """
import ctypes, sys
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.forked import emitted
from secondpass.llvm.sandbox import Sandbox

load()
libc = ctypes.CDLL(None)
libc.on_exit(libc.pause, None)  # as a library's handler that waits for a thread which forks do not have
with Sandbox(1, {SECONDS}, fork=True) as sandbox:
    print(sandbox.compile(Job({SMALL}, ({ABORT!r},)))[0].status)
with Module.parse({SMALL}) as module:
    print(emitted(module, ["-stop-after=none-such"], {SECONDS}))
sys.stdout.flush()
libc._exit(0)
"""


def test_a_fork_that_llvm_ends_runs_no_exit_handler_of_its_parents():
    program = HANGING_EXIT.format(SECONDS=SECONDS, SMALL=SMALL, ABORT=ABORT)
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["crash", "None"], done.stderr
    assert time.monotonic() - started < SECONDS


# Processes


def stat(pid):
    """The state and the parent of a process; nothing where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def children(pid):
    """The processes below a process, each with its state."""
    every = {int(path.name): stat(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    return {child: found[0] for child, found in every.items() if found and found[1] == pid}


def files(pid="self"):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def gone(pids, seconds=5.0):
    """Whether all these processes end within a time. A zombie has ended: its new parent has not looked yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all((found := stat(pid)) is None or found[0] == "Z" for pid in pids):
            return True
        time.sleep(0.01)
    return False


def test_a_dead_worker_is_replaced_within_50_milliseconds():
    def seconds(*lists):
        started = time.perf_counter()
        sandbox.compile(Job(SMALL, lists))
        return time.perf_counter() - started

    medians = []
    with Sandbox(workers=1) as sandbox:
        seconds("", "")
        for _ in range(6):  # other processes may hold the cores: the quietest round counts
            alive = statistics.median(seconds("", "") for _ in range(7))
            medians.append(statistics.median(seconds(CRASH, "") for _ in range(7)) - alive)
    assert min(medians) < 0.050


def test_fifty_deaths_leave_no_zombie(fresh):
    fresh.compile(Job(SMALL, (CRASH,) * 50 + ("",) * 4))
    assert fresh.deaths == 50
    assert "Z" not in children(fresh._server.pid).values()


def test_fifty_deaths_leave_as_many_workers_as_before(fresh):
    fresh.compile(Job(SMALL, (CRASH,) * 50 + ("",) * 4))
    assert len(children(fresh._server.pid)) <= 2


def test_fifty_deaths_leave_no_open_file(fresh):
    fresh.compile(Job(SMALL, ("",) * 8))
    time.sleep(0.2)  # the server closes its end of a worker's socket after it has handed over ours
    before = files(), files(fresh._server.pid)
    fresh.compile(Job(SMALL, (CRASH,) * 50 + ("",) * 8))
    time.sleep(0.2)
    assert (files(), files(fresh._server.pid)) == before


def test_a_closed_sandbox_leaves_no_open_file():
    before = files()
    with Sandbox(workers=2) as sandbox:
        sandbox.compile(Job(SMALL, (CLEAN, CRASH, "")))
    assert files() == before


def test_a_closed_sandbox_leaves_no_process():
    with Sandbox(workers=2) as sandbox:
        sandbox.compile(Job(SMALL, ("",) * 8))
        below = [sandbox._server.pid, *children(sandbox._server.pid)]
        assert len(below) > 1
    assert [pid for pid in below if stat(pid)] == []


def test_closing_in_the_middle_of_a_list_is_prompt():
    sandbox = Sandbox(workers=2, timeout=60)
    running = sandbox.run([Job(LARGE, (CLEAN,)), Job(LARGE, (HANG, HANG))])
    next(running)
    started = time.monotonic()
    running.close()
    sandbox.close()
    assert time.monotonic() - started < 2


def test_closing_twice_does_nothing():
    sandbox = Sandbox(workers=1)
    sandbox.close()
    sandbox.close()


def test_a_closed_sandbox_cannot_be_used():
    sandbox = Sandbox(workers=1)
    sandbox.close()
    with pytest.raises(SandboxError):
        sandbox.compile(Job(SMALL, (CLEAN,)))


def test_the_death_of_the_server_is_an_error(fresh):
    fresh.compile(Job(SMALL, (CLEAN,)))
    os.kill(fresh._server.pid, signal.SIGKILL)
    with pytest.raises(SandboxError, match="server ended with code -9"):
        fresh.compile(Job(LARGE, (HANG, HANG)))  # the workers outlive it by a moment, in which short lists would end


def test_a_server_that_died_long_ago_is_an_error_too(fresh):
    fresh.compile(Job(SMALL, ("",) * 8))
    workers = children(fresh._server.pid)
    os.kill(fresh._server.pid, signal.SIGKILL)
    assert gone(workers)
    with pytest.raises(SandboxError):
        fresh.compile(Job(SMALL, (CLEAN,) * 8))


def test_an_interrupt_amid_a_question_ends_the_sandbox(fresh, monkeypatch):
    fresh.compile(Job(SMALL, ("",) * 8))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("secondpass.llvm.sandbox.receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fresh.compile(Job(SMALL, (CRASH, CLEAN)))
    with pytest.raises(SandboxError):
        fresh.compile(Job(SMALL, (CLEAN,)))


def test_workers_do_not_outlive_a_killed_server(fresh):
    fresh.compile(Job(SMALL, ("",) * 8))
    workers = children(fresh._server.pid)
    os.kill(fresh._server.pid, signal.SIGKILL)
    assert gone(workers)


@pytest.mark.parametrize("arguments", [{"workers": -1}, {"timeout": 0}, {"memory": 0}])
def test_limits_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        Sandbox(**arguments)


@pytest.fixture
def busy_parent(tmp_path):
    """A Python process in the middle of a batch of endless lists, and all the processes below it."""
    (tmp_path / "large.ll").write_bytes(LARGE)
    script = f"""
        import signal
        from pathlib import Path
        from secondpass.llvm.jobs import Job
        from secondpass.llvm.sandbox import Sandbox
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        module = Path({str(tmp_path / "large.ll")!r}).read_bytes()
        hang = "function(" + ",".join(["newgvn"] * 100_000) + ")"
        with Sandbox(workers=2, timeout=60) as sandbox:
            jobs = (Job(module, ("",) if i < 4 else (hang,)) for i in range(20))
            for _ in sandbox.run(jobs):
                print(sandbox._server.pid, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        server = int([process.stdout.readline() for _ in range(4)][-1])
        time.sleep(0.2)  # until its workers are at endless lists
        yield process, [server, *children(server)]
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_a_batch_promptly(busy_parent):
    process, _ = busy_parent
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert said.strip().endswith("KeyboardInterrupt")


def test_ctrl_c_leaves_no_process(busy_parent):
    process, below = busy_parent
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert [pid for pid in below if stat(pid)] == []


def test_a_killed_parent_leaves_no_process(busy_parent):
    process, below = busy_parent
    process.kill()
    assert len(below) == 3
    assert gone(below)
