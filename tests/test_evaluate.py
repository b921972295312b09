"""Measuring models and what needs none: the same functions, the same measure, nothing computed twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from compiling import SECONDPASS

from secondpass.errors import CorpusError, EngineError, EngineStopped, InputError
from secondpass.tuner.labels import Label
from secondpass.tuner.search import Found

pytest.importorskip("pyarrow", reason="needs secondpass[corpus]")

from secondpass.corpus.store import Corpus
from secondpass.evaluate.cache import Cache
from secondpass.evaluate.cases import Case, Trials, Tried, read_cases
from secondpass.evaluate.evaluation import Request, evaluate
from secondpass.evaluate.methods import FixedLists, RandomLists, SimilarFunctions
from secondpass.evaluate.models import Model, ask_together
from secondpass.evaluate.similar import Neighbours
from secondpass.evaluate.tables import everything, first_answers, last_answer, quality, score
from secondpass.llvm.jobs import Job
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.manifest import SHIPPED
from secondpass.prompt import Objective
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.single import Single
from secondpass.strategies.tree import Beam
from secondpass.tuner.labels import read_labels, write_labels
from secondpass.workers import answer_all

SROA, GVN = ("sroa",), ("mem2reg", "gvn")


@pytest.fixture(scope="module")
def cases(labelled):
    return read_cases(Corpus(labelled.corpus), read_labels(labelled.labels, Objective.INSTRUCTIONS), "test")


def case(key, oz, best, source=50):
    return Case(key, "p", "c", "", b"", source, oz, best, SROA)


def trials(key, *tried):
    return Trials(key, tuple(tried), 1.0)


# Tables


def test_a_score_sums_over_functions_and_takes_oz_as_back_up():
    functions = [case("a", 20, 10), case("b", 20, 20), case("c", 10, 8)]
    found = {
        "a": trials("a", Tried(SROA, 15), Tried(GVN, 12)),
        "b": trials("b", Tried(SROA, 25)),
        "c": trials("c"),  # nothing was tried
    }
    every = score("every", functions, found, everything)
    assert every.gain == pytest.approx(8 / 50)
    assert every.mean_gain == pytest.approx((8 / 20) / 3)
    assert every.of_autotuner == pytest.approx(8 / 12)
    assert every.gain_alone == pytest.approx((8 - 5) / 50)
    assert every.improved == pytest.approx(1 / 3)
    assert (every.answers, every.compiles) == (0, pytest.approx(1))
    assert score("one", functions, found, first_answers(1)).gain == pytest.approx(5 / 50)


def test_a_list_that_cannot_be_used_leaves_the_function_as_it_was():
    functions, found = [case("a", 20, 10)], {"a": trials("a", Tried(SROA, None))}
    one = score("one", functions, found)
    assert (one.gain, one.gain_alone) == (0, pytest.approx((20 - 50) / 20))


def test_the_last_answer_counts_alone():
    functions = [case("a", 20, 10)]
    found = {"a": trials("a", Tried(SROA, 11), Tried(GVN, 16, turn=1))}
    assert score("last", functions, found, last_answer).gain == pytest.approx(4 / 20)
    assert score("first", functions, found, first_answers(5)).gain == pytest.approx(9 / 20)


def test_quality_is_of_first_answers():
    functions = [case("a", 20, 10), case("b", 20, 20), case("c", 10, 8), case("d", 10, 8)]
    found = {
        "a": trials("a", Tried(SROA, 10, source=50, target=10), Tried(GVN, 99, 1, 1)),
        "b": trials("b", Tried(GVN, 22, source=49, target=22, code_parses=True, bleu=0.5)),
        "c": trials("c"),
        "d": replace(trials("d", Tried(SROA, 8, source=9, target=9)), abridged=True),
    }
    it = quality(functions, found)
    assert (it.functions, it.too_long, it.valid) == (2, 2, 1)
    assert (it.source_right, it.target_right, it.exact, it.as_good) == (0.5, 1, 0.5, 0.5)
    assert (it.code_parses, it.bleu) == (1, 0.5)


# Similar functions


def test_the_nearest_function_is_the_one_with_the_same_shape():
    body = "define i32 @{}(i32 %0) {{\n  %2 = alloca i32\n  {} i32 %0, ptr %2\n  ret i32 {}\n}}\n"
    texts = [body.format("f", "store", 1), "define void @g() {\n  ret void\n}\n"]
    labels = [Label(key, 9, (Found(passes, 8),), 1) for key, passes in (("f", SROA), ("g", GVN))]
    found = Neighbours(texts, labels).lists([body.format("other", "store", 77), texts[1]], 2)
    assert found == [[SROA, GVN], [GVN, SROA]]


def test_a_training_function_is_its_own_nearest_neighbour(labelled):
    corpus, labels = Corpus(labelled.corpus), read_labels(labelled.labels, Objective.INSTRUCTIONS)
    training = read_cases(corpus, labels, "train")
    found = {it.key: it for it in SimilarFunctions(corpus, labels, 1).trials(training)}
    assert [found[it.key].tried[0].count for it in training] == [labels[it.key].best.value for it in training]


# Methods and what is kept


@pytest.mark.parametrize("method", [FixedLists(3), RandomLists(4)])
def test_counts_are_those_of_the_lists_compiled_alone(cases, method):
    few = cases[:4]
    found = {it.key: it for it in method.trials(few)}
    assert found.keys() == {it.key for it in few}
    with Sandbox(1) as sandbox:
        for it in few:
            tried = found[it.key].tried
            outcomes = sandbox.compile(Job(it.bitcode, tuple(str(PassList.of(*each.passes)) for each in tried)))
            assert [outcome.instructions if outcome.ok else None for outcome in outcomes] == [
                each.count for each in tried
            ]


def test_random_lists_differ_by_function_and_not_by_run(cases):
    lists = [{it.key: [each.passes for each in it.tried] for it in RandomLists(3).trials(cases[:2])} for _ in range(2)]
    assert lists[0] == lists[1]
    assert lists[0][cases[0].key] != lists[0][cases[1].key]


def test_trials_come_back_from_the_cache_though_it_was_killed_while_writing(tmp_path):
    written = [
        trials("a", Tried(SROA, 11, 50, 11, -1.5, 9, 0, 3, None)),
        trials("b", Tried(GVN, None), Tried(SROA, 3)),
    ]
    with Cache(tmp_path) as cache:
        kept = cache.method("m", {"seed": 1})
        for it in written:
            kept.add(it)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-30])
    with Cache(tmp_path) as cache:
        kept = cache.method("m", {"seed": 1})
        assert kept.trials == {"a": written[0]}
        kept.add(written[1])
        assert cache.method("m", {"seed": 1}).trials == {it.key: it for it in written}
        assert cache.method("m", {"seed": 2}).trials == {}


def test_checkpoints_of_one_training_are_told_apart(tmp_path):
    def model(name, weights):
        directory = tmp_path / name
        directory.mkdir()
        for file, content in (("model.safetensors", weights), ("tokenizer.json", b"{}"), ("model.json", b"{}")):
            (directory / file).write_bytes(content)
        (directory / "optimizer.pt").write_bytes(name.encode())
        return Model(directory, Single(), "model").facts["model"]

    assert model("checkpoint-1", b"one") != model("checkpoint-2", b"two")
    assert model("checkpoint-3", b"two") == model("checkpoint-4", b"two")


def test_a_folder_in_use_is_refused(tmp_path):
    with Cache(tmp_path), pytest.raises(InputError, match="another evaluation is using it"):
        Cache(tmp_path)


# Processes that die


def answer_or_end(end, case):
    if case.key == "c":
        end()
    return trials(case.key)


def fail(error):
    raise error


def ready_to(end):
    return partial(answer_or_end, end)


def stop_by_signal(number):
    os.kill(os.getpid(), number)


def called(case):
    return f"function {case.key}"


def answered(end, workers=1):
    """The keys of what four functions gave, and the error; the third one is the end of a process."""
    begin, keys = partial(ready_to, end), []
    with pytest.raises(EngineStopped) as caught:
        keys += (it.key for it in answer_all("box", begin, [case(key, 9, 9) for key in "abcd"], workers, called))
    return keys, caught.value


def test_every_function_is_answered_by_as_many_processes_as_are_asked_for():
    cases = [case(key, 9, 9) for key in "abdefg"]
    found = answer_all("box", partial(ready_to, None), cases, 2, called)
    assert sorted(it.key for it in found) == [*"abdefg"]
    assert list(answer_all("box", partial(ready_to, None), [], 2, called)) == []


@pytest.mark.parametrize(
    ("end", "said", "code"),
    [
        (partial(fail, EngineError("the model 'box' knows no feedback")), "the model 'box' knows no feedback", 2),
        (partial(fail, MemoryError()), "the model ran out of memory; fewer --workers need less", 1),
        (partial(fail, RuntimeError("bad_alloc")), "ended with exit code 1, its message is above", 1),
        (partial(stop_by_signal, signal.SIGKILL), "was killed by SIGKILL (out of memory?", 1),
        (partial(stop_by_signal, signal.SIGSEGV), "was killed by SIGSEGV", 1),
    ],
    ids=["error", "memory", "fault", "killed", "crash"],
)
def test_what_stops_a_process_is_named_after_what_was_done(end, said, code):
    keys, error = answered(end)
    assert keys == ["a", "b"]
    assert error.exit_code == code
    assert str(error).startswith("box, at function c: ")
    assert said in str(error)


def test_the_others_finish_what_they_are_at():
    keys, _ = answered(partial(stop_by_signal, signal.SIGKILL), workers=4)
    assert sorted(keys) == ["a", "b", "d"]


# The command


def evaluated(labelled, out, *options):
    return subprocess.run(
        [SECONDPASS, "evaluate", labelled.corpus, labelled.labels, "--out", out, *map(str, options)],
        capture_output=True,
        text=True,
    )


LITTLE = "--answers", 5, "--limit", 5, "--workers", 1, "--temperatures", 0.5, 1.5


def test_the_whole_evaluation_is_one_page_and_nothing_is_measured_twice(labelled, tmp_path):
    out = tmp_path / "out"
    first = evaluated(labelled, out, *LITTLE)
    assert first.returncode == 0, first.stderr
    for row in (
        "greedy answer",
        "best of 5 samples",
        "search from 5 answers",
        "coreset: 50 lists",
        "nearest neighbour's list",
        "autotuner",
    ):
        assert row in first.stdout
    results = json.loads((out / "results.json").read_text())
    assert results["functions"] == 5
    assert {"table", "quality", "correlations", "distributions", "tasks", "sampling", "iteration", "compiles"} <= {
        *results
    }
    assert all(it["valid"] == 1 for it in results["quality"].values())
    for curves in (*results["sampling"].values(), *results["compiles"].values()):
        for curve in curves:
            assert curve["share"] == sorted(curve["share"])  # more answers are never worse
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    assert "http" not in page.replace("http-equiv", "")
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{kind}"
        for name in ("correlations", "distributions", "tasks", "sampling", "iteration", "compiles")
        for kind in ("png", "svg")
    }
    kept = {path.name: path.read_bytes() for path in (out / "answers").glob("*.jsonl")}
    again = evaluated(labelled, out, *LITTLE)
    assert again.stdout == first.stdout
    assert {path.name: path.read_bytes() for path in (out / "answers").glob("*.jsonl")} == kept
    assert (out / "report.html").read_text() == page


def test_models_are_asked_in_all_ways_together(labelled, tmp_path):
    named = []
    request = Request(
        corpus=labelled.corpus,
        labels=labelled.labels,
        out=tmp_path,
        models=(("a", SHIPPED), ("b", SHIPPED)),
        limit=2,
        answers=2,
        temperatures=(0.5,),
        workers=1,
    )
    evaluate(request, lambda name, _done, _all: named.append(name))
    assert [name for name in dict.fromkeys(named) if "strategies" in name] == ["a: 13 strategies", "b: 15 strategies"]
    assert not [name for name in named if name.startswith(("a-", "b-")) and not name.endswith("finished")]


def test_a_model_asked_in_many_ways_at_once_finds_what_each_finds_alone(cases):
    ways = [Model(SHIPPED, it, str(it)) for it in (Single(), Sample(5, 1.0), Sample(5, 1.5, then=Then.GREEDY), Beam(5))]
    together = {}
    for found in ask_together("all", ways, [(case, (0, 1, 2, 3)) for case in cases[:3]]):
        together |= {(place, it.key): it for place, it in found}
    for place, way in enumerate(ways):
        for alone in way.trials(cases[:3]):
            found = together[place, alone.key]
            assert replace(found, seconds=alone.seconds) == alone
            assert found.seconds > 0


def test_a_corpus_without_training_functions_has_a_table_without_neighbours(labelled, tmp_path):
    labels, splits = read_labels(labelled.labels, Objective.INSTRUCTIONS), Corpus(labelled.corpus).select("test")
    write_labels(tmp_path / "test.parquet", [labels[it.hash] for it in splits], Objective.INSTRUCTIONS)
    tested = SimpleNamespace(corpus=labelled.corpus, labels=tmp_path / "test.parquet")
    run = evaluated(tested, tmp_path / "out", *LITTLE, "--parts", "table")
    assert run.returncode == 0, run.stderr
    assert "coreset: 50 lists" in run.stdout
    assert "nearest" not in run.stdout
    assert "there are no nearest neighbours to show" in (tmp_path / "out" / "report.html").read_text()


def test_an_evaluation_whose_engine_is_killed_goes_on_to_the_same_numbers(labelled, tmp_path):
    options = "--answers", 6, "--limit", 8, "--parts", "sampling", "--temperatures", 1, "--workers", 2
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert evaluated(labelled, whole, *options).returncode == 0
    command = [SECONDPASS, "evaluate", labelled.corpus, labelled.labels, "--out", out, *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.kill(engine_at_work(process.pid, out), signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.count("\n") == 1
    assert ": 3 strategies, at function " in said and "was killed by SIGKILL" in said
    assert said.endswith("; what was measured is kept, the same command goes on\n")
    assert not (out / "results.json").exists()
    kept = {path.name: path.read_bytes() for path in (out / "answers").glob("*.jsonl")}
    again = evaluated(labelled, out, *options)
    assert again.returncode == 0, again.stderr
    for name, lines in kept.items():
        assert (out / "answers" / name).read_bytes().startswith(lines)  # nothing was measured twice
    assert (out / "results.json").read_text() == (whole / "results.json").read_text()


def engine_at_work(parent, out):
    """A process that answers functions with samples, once some of its answers are kept."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(path.stat().st_size for path in out.glob("answers/*samples*.jsonl")):
            return next(pid for pid in children(parent) if "spawn_main" in command_of(pid))
        time.sleep(0.01)
    raise AssertionError("no samples were kept within a minute")


def children(parent):
    return [int(pid) for it in Path(f"/proc/{parent}/task").iterdir() for pid in (it / "children").read_text().split()]


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.mark.parametrize(
    "options",
    [
        ("--answers", 0),
        ("--answers", 10_000),
        ("--limit", 0),
        ("--temperatures", -1),
        ("--parts", "figure9"),
        ("--models", "nowhere"),
        ("--models", f"a={SHIPPED}", f"a={SHIPPED}"),
    ],
)
def test_options_that_make_no_sense_are_refused(labelled, tmp_path, options):
    run = evaluated(labelled, tmp_path / "out", *options)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("secondpass: ")


def test_an_empty_split_is_named(labelled, tmp_path):
    few = tmp_path / "few.parquet"
    labels = read_labels(labelled.labels, Objective.INSTRUCTIONS)
    training = {entry.hash for entry in Corpus(labelled.corpus).select("train")}
    write_labels(few, (label for key, label in labels.items() if key in training), Objective.INSTRUCTIONS)
    with pytest.raises(CorpusError, match="no function of the split 'test' has a label"):
        read_cases(Corpus(labelled.corpus), read_labels(few, Objective.INSTRUCTIONS), "test")


def test_cases_are_the_first_by_hash_whatever_the_limit(labelled, cases):
    few = read_cases(Corpus(labelled.corpus), read_labels(labelled.labels, Objective.INSTRUCTIONS), "test", 3)
    assert few == cases[:3]
    assert [it.key for it in cases] == sorted(it.key for it in cases)
    assert replace(few[0], best=0) != few[0]
