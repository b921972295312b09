"""Training data: which lists are taught, the directory on disk, and the command that makes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from compiling import SECONDPASS
from processes import wait_for

from secondpass.errors import CorpusError, InputError, ModelError
from secondpass.feedback import Verdict
from secondpass.llvm.passes import PassList
from secondpass.prompt import END, FEEDBACK, Answer, Feedback, Form, Objective, OptimizePrompt
from secondpass.tuner.labels import Label, LabelStore
from secondpass.tuner.search import Found

pytest.importorskip("pyarrow", reason="needs secondpass[corpus]")

from secondpass.corpus.store import Corpus
from secondpass.engines.onnx import OnnxEngine
from secondpass.llvm.sandbox import Sandbox
from secondpass.model import dataset
from secondpass.model.answering import Answering
from secondpass.model.commands import (
    FeedbackRequest,
    OptimizeRequest,
    labelled_entries,
    make_feedback,
    make_optimize,
)
from secondpass.model.data import (
    Labelled,
    Target,
    choose,
    compile_targets,
    feedback_example,
    popularity,
    read_labelled,
    widened,
    with_counted,
)
from secondpass.model.manifest import SHIPPED
from secondpass.tuner.coreset import coreset
from secondpass.tuner.labels import read_labels
from secondpass.tuner.outcomes import Outcomes, read_outcomes, try_lists, write_outcomes

LITTLE = ("--vocabulary", "500", "--context", "9999")
SROA, GVN, DSE, O1 = ("sroa",), ("mem2reg", "gvn"), ("mem2reg", "dse"), ("default<O1>",)


def label(oz, *found, key="f"):
    return Label(key, oz, tuple(Found(passes, value) for passes, value in found), 10)


# Which lists are taught


def test_of_equally_good_lists_the_one_that_is_good_on_most_functions_comes_first():
    one = label(20, (SROA, 10), (GVN, 10), (O1, 12))
    popular = popularity([one, label(9, (GVN, 8)), label(9, (GVN, 8)), label(9, (SROA, 8)), label(9, (O1, 9))])
    assert popular == {SROA: 2, GVN: 3}
    assert [found.passes for found, _ in choose(one, popular, 8)] == [GVN, SROA, O1]


def test_among_equally_popular_ones_the_shorter_comes_first():
    assert [found.passes for found, _ in choose(label(20, (GVN, 10), (SROA, 10)), {}, 1)] == [SROA]


def test_shares_fall_with_what_a_list_gains_and_sum_to_one():
    chosen = choose(label(20, (SROA, 10), (GVN, 10), (DSE, 15), (O1, 19)), {}, 8)
    assert [found.passes for found, _ in chosen] == [SROA, GVN, DSE]  # a tenth of the gain is not worth teaching
    shares = [share for _, share in chosen]
    assert shares[0] == shares[1] > 10 * shares[2] > 0
    assert sum(shares) == pytest.approx(1)


def test_where_nothing_beats_oz_only_lists_as_good_as_it_are_taught():
    chosen = choose(label(10, (O1, 10), (SROA, 10), (GVN, 12)), {}, 8)
    assert [(found.passes, share) for found, share in chosen] == [(O1, 0.5), (SROA, 0.5)] or [
        found.passes for found, _ in chosen
    ] == [SROA, O1]
    assert all(found.value == 10 for found, _ in chosen)


def table(**values):
    """Outcomes of the lists SROA, GVN and O1."""
    found = {key: np.array(it, dtype=np.int32) for key, it in values.items()}
    return Outcomes(Objective.INSTRUCTIONS, (SROA, GVN, O1), dict.fromkeys(values, 20), found)


def test_lists_that_were_tried_on_many_functions_stand_beside_what_a_search_found():
    found = widened({"f": label(20, (DSE, 12), (SROA, 15))}, table(f=[15, 11, 0]))
    assert [(it.passes, it.value) for it in found["f"].found] == [(GVN, 11), (DSE, 12), (SROA, 15)]
    assert found["f"].gain == 9


def test_a_function_that_was_not_searched_has_what_was_tried_on_it_as_its_label():
    found = widened({}, table(f=[15, 21, 18], g=[20, 0, 22]))
    assert [(it.passes, it.value) for it in found["f"].found] == [
        (SROA, 15),
        (O1, 18),
        (("default<O2>",), 20),
        (GVN, 21),
    ]
    assert found["g"].gain == 0


def test_where_a_search_found_nothing_better_than_oz_a_label_stays():
    tied = label(20, (SROA, 20))
    assert widened({"f": tied}, table(f=[20, 22, 23])) == {"f": tied}


def test_where_a_table_beats_oz_and_a_search_did_not_the_table_is_believed():
    assert widened({"f": label(20, (SROA, 20))}, table(f=[20, 18, 0]))["f"].best == Found(GVN, 18)


# What lists do on many functions


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, labelled):
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.parquet"
    subprocess.run([SECONDPASS, "data", "outcomes", labelled.corpus, "--out", path, "--coreset", "12"], check=True)
    return path


def test_outcomes_are_what_the_compiler_leaves(outcomes, labelled):
    corpus, found = Corpus(labelled.corpus), read_outcomes(outcomes, Objective.INSTRUCTIONS)
    lists = coreset(Objective.INSTRUCTIONS, 12)
    assert found.lists == tuple(it.words for it in lists)
    assert found.values.keys() == {it.hash for it in corpus.select("train", "validation")}
    improved = 0
    for key, values in list(found.values.items())[:40]:
        assert found.oz[key] == corpus.entries[key].oz
        better = min(values[:10]) < found.oz[key]
        improved += better
        for number, it in enumerate(lists):
            untried = number >= 10 and not better
            assert values[number] == (0 if untried else counted(corpus, key, it))
    assert improved


def test_what_was_tried_is_not_tried_again(outcomes, labelled, tmp_path):
    corpus, path = Corpus(labelled.corpus), tmp_path / "outcomes.parquet"
    lists, whole = coreset(Objective.INSTRUCTIONS, 12), read_outcomes(outcomes, Objective.INSTRUCTIONS)
    kept, rest = sorted(whole.values)[:20], sorted(whole.values)[20:30]
    marked = {key: np.full(12, 7, dtype=np.int32) for key in kept}
    write_outcomes(path, Outcomes(Objective.INSTRUCTIONS, whole.lists, dict.fromkeys(kept, 9), marked))
    with Sandbox(1) as sandbox:
        found = try_lists(corpus, [*kept, *rest], lists, path, Objective.INSTRUCTIONS, sandbox)
    again = read_outcomes(path, Objective.INSTRUCTIONS)
    for key in (*kept, *rest):
        expected = marked[key] if key in marked else whole.values[key]
        assert found.values[key].tolist() == again.values[key].tolist() == expected.tolist()


def test_a_table_of_other_lists_is_refused(outcomes, labelled):
    run = subprocess.run(
        [SECONDPASS, "data", "outcomes", labelled.corpus, "--out", outcomes, "--coreset", "11"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2
    assert "is of 12 other lists; name another file" in run.stderr


def test_labels_are_no_table_of_outcomes(labelled):
    with pytest.raises(CorpusError, match="no table of outcomes"):
        read_outcomes(labelled.labels, Objective.INSTRUCTIONS)


def test_of_counted_lists_the_counts_alone_are_learnt(tmp_path, labelled, outcomes):
    made = make_optimize(
        OptimizeRequest(
            corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "data", vocabulary=500, context=9_999,
            outcomes=(outcomes,), counted=3,
        )
    )  # fmt: skip
    found, values = dataset.Dataset(made.out, "train"), read_outcomes(outcomes, Objective.INSTRUCTIONS)
    assert all(len(it.counted) == len(it.given) == 3 for it in found)
    for it in found[:20]:
        for tokens, given in zip(it.counted, it.given, strict=True):
            answer = Answer.parse(found.tokenizer.decode(tokens.tolist()))
            assert answer.target == values.values[it.function][values.lists.index(answer.passes.words)]
            assert found.tokenizer.decode(tokens[given:].tolist()) == f"{answer.target}\n{END}"
        assert it.length == len(it.context) + sum(map(len, (*it.answers, *it.counted)))
    assert found.lengths.tolist() == [it.length for it in found]


def test_counted_lists_are_drawn_of_what_compiles_and_are_the_same_each_time():
    function = Labelled("ab" * 12, "", Objective.INSTRUCTIONS, 30, 5, ())
    outcomes = table(**{"ab" * 12: [15, 0, 18]})
    (one,), (other,) = (with_counted([function], outcomes, 2) for _ in range(2))
    assert one == other
    assert {(passes.words, count) for passes, count in one.counted} == {(SROA, 15), (O1, 18)}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"counted": 2}, "--counted needs --outcomes"), ({"counted": -1}, "--counted must not be negative")],
)
def test_counted_lists_need_outcomes(tmp_path, labelled, change, message):
    with pytest.raises(InputError, match=message):
        make_optimize(OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "d", **change))


# The directory


def example(*lengths, gain=3):
    answers = tuple(np.arange(length, dtype=np.int32) for length in lengths)
    shares = tuple(1 / len(lengths) for _ in lengths)
    return dataset.Example("ab" * 12, np.arange(7, dtype=np.int32), 5, answers, shares, gain)


@pytest.fixture
def directory(tmp_path, labelled):
    """Real data, to be spoilt."""
    out = tmp_path / "data"
    request = OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=out, vocabulary=500, context=9_999)
    make_optimize(request)
    return out


def test_examples_come_back_as_they_were_written(directory):
    written = [example(3, 2), example(4, gain=0), example(1, 5, 2)]
    dataset.write_split(directory, "train", written)
    found = dataset.Dataset(directory, "train")
    assert len(found) == 3
    assert found.lengths.tolist() == [it.length for it in written] == [12, 11, 15]
    assert found.gains.tolist() == [3, 0, 3]
    for one, other in zip(written, found, strict=True):
        assert (one.function, one.prompt_end, one.gain) == (other.function, other.prompt_end, other.gain)
        assert one.shares == pytest.approx(other.shares)
        assert [it.tolist() for it in (one.context, *one.answers)] == [
            it.tolist() for it in (other.context, *other.answers)
        ]


def test_an_empty_split_is_refused(directory):
    dataset.write_split(directory, "validation", [])
    with pytest.raises(ModelError, match="the split 'validation' is empty"):
        dataset.Dataset(directory, "validation")


@pytest.mark.parametrize("name", ["format_version", "prompt_version", "normal_form_version", "vocabulary_version"])
def test_data_of_another_version_is_refused(directory, name):
    path = directory / dataset.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: 99}))
    with pytest.raises(ModelError, match=rf"made with {name.replace('_', ' ')} 99"):
        dataset.Dataset(directory, "train")


def test_data_whose_tokenizer_was_exchanged_is_refused(directory):
    path = directory / dataset.TOKENIZER
    path.write_text(path.read_text() + " ")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not the one that made the ids"):
        dataset.Dataset(directory, "train")


@pytest.mark.parametrize("damage", ["", "[]", "{"])
def test_a_damaged_manifest_is_named(directory, damage):
    (directory / dataset.MANIFEST).write_text(damage)
    with pytest.raises(ModelError, match=r"data\.json"):
        dataset.Dataset(directory, "train")


def test_a_directory_without_data_is_named(tmp_path):
    with pytest.raises(ModelError, match="holds no training data"):
        dataset.Dataset(tmp_path, "train")


# The command


@pytest.mark.parametrize("split", dataset.SPLITS)
def test_an_example_is_the_prompt_and_the_best_lists_with_true_counts(directory, labelled, split):
    corpus, labels = Corpus(labelled.corpus), read_labels(labelled.labels, Objective.INSTRUCTIONS)
    found = dataset.Dataset(directory, split)
    assert {it.function for it in found} == {entry.hash for entry in corpus.select(split)}
    for it in found:
        label = labels[it.function]
        assert found.tokenizer.decode(it.context.tolist()) == OptimizePrompt(corpus.text(it.function)).render()
        assert it.prompt_end == len(it.context)
        assert it.gain == label.gain
        texts = [found.tokenizer.decode(tokens.tolist()) for tokens in it.answers]
        assert all(text.endswith(END) for text in texts)
        answers = [Answer.parse(text) for text in texts]
        known = {each.passes: each.value for each in label.found}
        assert [known[answer.passes.words] for answer in answers] == [answer.target for answer in answers]
        assert answers[0].target == label.best.value
        assert {answer.source for answer in answers} == {corpus.entries[it.function].source}


def test_bytes_prompts_say_so_and_count_instructions(tmp_path, labelled):
    out, labels = tmp_path / "data", tmp_path / "bytes.parquet"
    subprocess.run(
        [SECONDPASS, "tune", labelled.corpus, "--objective", "bytes", "--budget", "5", "--out", labels],
        check=True, capture_output=True,
    )  # fmt: skip
    run = subprocess.run(
        [SECONDPASS, "data", "optimize", labelled.corpus, labelled.labels, labels, "--out", out, *LITTLE],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found, corpus = dataset.Dataset(out, "train"), Corpus(labelled.corpus)
    assert f"train: {len(found):,} examples" in run.stdout
    prompts = [OptimizePrompt.parse(found.tokenizer.decode(it.context.tolist())) for it in found]
    assert {prompt.objective for prompt in prompts} == set(Objective)
    assert len(found) == 2 * len(corpus.select("train"))
    pairs = [it for it, prompt in zip(found, prompts) if prompt.objective is Objective.BYTES]
    for it in pairs[:5]:
        answer = Answer.parse(found.tokenizer.decode(it.answers[0].tolist()))
        assert answer.target == counted(corpus, it.function, answer.passes)


def counted(corpus, key, passes):
    from secondpass.llvm.jobs import Job

    with Sandbox(1) as sandbox:
        outcome = sandbox.compile(Job(corpus.bitcode(key), (str(passes),)))[0]
        return outcome.instructions if outcome.ok else None


def test_code_in_answers_is_the_ir_that_the_list_leaves(labelled):
    from secondpass import ir
    from secondpass.llvm.module import Module

    corpus, labels = Corpus(labelled.corpus), read_labels(labelled.labels, Objective.INSTRUCTIONS)
    functions = read_labelled(corpus, corpus.select("test"), labels, Objective.INSTRUCTIONS, {}, 1)
    with Sandbox(1) as sandbox:
        coded = compile_targets(corpus, functions, sandbox, code=True)
    assert len(coded) == len(functions)
    for it in coded:
        with Module.parse(corpus.bitcode(it.function), "function") as module:
            module.run(it.best.passes)
            assert it.best.code == ir.normalise(module.to_text())


def test_functions_longer_than_the_context_are_left_out_and_counted(tmp_path, labelled):
    made = make_optimize(
        OptimizeRequest(
            corpus=labelled.corpus,
            labels=(labelled.labels,),
            out=tmp_path / "a",
            vocabulary=500,
            context=250,
        )
    )
    found = dataset.Dataset(tmp_path / "a", "train")
    assert made.manifest.left_out["train"] > 0
    assert max(it.longest for it in found) <= 250
    assert made.manifest.counts["train"] == len(found)


def test_a_tokenizer_can_be_given(tmp_path, directory, labelled):
    again = OptimizeRequest(
        corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "b", tokenizer=directory / dataset.TOKENIZER
    )
    make_optimize(again)
    assert dataset.digest(tmp_path / "b" / "tokenizer.json") == dataset.digest(directory / "tokenizer.json")


@pytest.mark.parametrize(("change", "message"), [({"answers": 17}, "--answers 17"), ({"context": 0}, "--context")])
def test_options_that_make_no_sense_are_refused(tmp_path, labelled, change, message):
    with pytest.raises(InputError, match=message):
        make_optimize(
            OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "data", **change)
        )


def test_a_second_file_of_one_objective_is_refused(tmp_path, labelled):
    other = tmp_path / "other.parquet"
    shutil.copy(labelled.labels, other)
    with pytest.raises(InputError, match="a second file of labels for the objective instructions"):
        make_optimize(OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels, other), out=tmp_path / "data"))


def test_something_else_is_never_written_over(tmp_path, labelled):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="there is something else already"):
        make_optimize(OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path))


def test_half_written_data_are_none_and_are_written_again(directory, labelled, monkeypatch):
    request = OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=directory, context=9_999)
    with monkeypatch.context() as patch:
        patch.setattr("secondpass.model.commands.write_split", Mock(side_effect=[None, KeyboardInterrupt]))
        with pytest.raises(KeyboardInterrupt):
            make_optimize(request)
    with pytest.raises(ModelError, match="holds no training data"):
        dataset.Manifest.read(directory)
    make_optimize(request)
    assert dataset.Manifest.read(directory).context == 9_999


def test_one_command_at_a_time_writes_a_directory(tmp_path, labelled):
    request = OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "data")
    with dataset.being_written(request.out), pytest.raises(InputError, match="another command is writing data there"):
        make_optimize(request)


def test_a_directory_that_cannot_be_made_is_named(tmp_path, labelled):
    (tmp_path / "file").touch()
    request = OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=tmp_path / "file" / "data")
    with pytest.raises(InputError, match="file/data: cannot be written to: Not a directory"):
        make_optimize(request)


def test_a_split_without_labels_is_named(tmp_path, labelled):
    labels = read_labels(labelled.labels, Objective.INSTRUCTIONS)
    corpus, path = Corpus(labelled.corpus), tmp_path / "few.parquet"
    with LabelStore(path, Objective.INSTRUCTIONS) as store:
        for entry in corpus.select("train"):
            store.add(labels[entry.hash])
        store.merge()
    with pytest.raises(ModelError, match="no function of the split 'validation' has a label"):
        make_optimize(OptimizeRequest(corpus=labelled.corpus, labels=(path,), out=tmp_path / "data"))


# Feedback


SOURCE, IR = 30, "define void @f() {\n  ret void\n}\n"


def taught(*counts):
    lists = (SROA, GVN, DSE)
    targets = tuple(Target(PassList.of(*it), count, 1 / len(counts), count) for it, count in zip(lists, counts))
    return Labelled("ab" * 12, IR, Objective.INSTRUCTIONS, SOURCE, 10, targets)


def second_answers(function, first, found):
    """The answers and shares taught after a first answer on which the compiler found a count."""
    tokens = OnnxEngine.load().tokenizer
    verdict = Verdict(first, SOURCE, found, None)
    example = feedback_example(function, tokens.encode_answer(first), verdict, Form.FAST, tokens)
    said = tokens.decode(example.context[example.prompt_end :].tolist())
    assert said == first.render() + verdict.feedback(Form.FAST).render()
    return [Answer.parse(tokens.decode(it.tolist())) for it in example.answers], example.shares


def test_after_a_feedback_only_lists_are_taught_that_leave_less_than_the_answer_did():
    first = Answer(PassList.of(*DSE), SOURCE, 12)
    answers, shares = second_answers(taught(10, 12, 14), first, 12)
    assert [(it.passes.words, it.target, it.sure) for it in answers] == [(SROA, 10, False)]
    assert shares == (1.0,)


def test_where_no_list_leaves_less_all_are_taught_again():
    first = Answer(PassList.of(*SROA), SOURCE, 9)
    answers, shares = second_answers(taught(10, 12), first, 10)
    assert [(it.passes.words, it.target) for it in answers] == [(SROA, 10), (GVN, 12)]
    assert shares == pytest.approx((0.5, 0.5))


def test_an_answer_that_foresaw_its_count_and_is_the_best_is_sure():
    first = Answer(PassList.of(*SROA), SOURCE, 10)
    answers, _ = second_answers(taught(10, 12), first, 10)
    assert [(it.passes.words, it.target, it.sure) for it in answers] == [(SROA, 10, True)]


@pytest.mark.parametrize("form", [Form.FAST, Form.LONG])
def test_feedback_data_are_a_models_own_answers_and_what_to_say_then(tmp_path, labelled, outcomes, form):
    made = make_feedback(
        FeedbackRequest(
            corpus=labelled.corpus, labels=labelled.labels, outcomes=outcomes, out=tmp_path / "data", model=SHIPPED,
            form=form, code=False, functions=16, context=9_999,
        )
    )  # fmt: skip
    assert not made.manifest.code and made.manifest.form == form
    found = {split: dataset.Dataset(made.out, split) for split in dataset.SPLITS}
    assert 0 < len(found["train"]) <= 16
    assert 0 < len(found["validation"]) <= 2
    for it in found["train"]:
        said = found["train"].tokenizer.decode(it.context[it.prompt_end :].tolist())
        first, told = said[: said.index(FEEDBACK)], said[said.index(FEEDBACK) :]
        assert isinstance(Answer.parse(first), Answer)
        assert Feedback.parse(told).form is form
        assert all(
            Answer.parse(found["train"].tokenizer.decode(tokens.tolist())).sure is not None for tokens in it.answers
        )


def test_functions_that_are_too_long_are_not_answered(tmp_path, labelled, monkeypatch):
    asked = []
    monkeypatch.setattr(Answering, "on", lambda _, corpus, functions, *rest: asked.extend(functions) or iter(()))
    request = FeedbackRequest(
        corpus=labelled.corpus, labels=labelled.labels, out=tmp_path / "data", model=SHIPPED, form=Form.FAST,
        context=200,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"none of \d+ train functions fits 200 tokens"):
        make_feedback(request)
    lengths = [len(OnnxEngine.load(SHIPPED).tokenizer.encode_prompt(it.prompt)) for it in asked]
    assert lengths and max(lengths) < 200


def examples_of(directory):
    """Every number of every example, as text."""
    return [
        [str(it.context), str(it.answers), str(it.shares), it.gain]
        for split in dataset.SPLITS
        for it in dataset.Dataset(directory, split)
    ]


def test_feedback_data_whose_making_was_killed_go_on_to_the_same(tmp_path, labelled):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    options = "--model", SHIPPED, "--form", "fast", "--samples", 2, "--temperature", 1, "--functions", 16
    options = *options, "--context", 9_999, "--workers", 1
    command = [SECONDPASS, "data", "feedback", labelled.corpus, labelled.labels, *map(str, options), "--out"]
    subprocess.run([*command, whole], check=True, capture_output=True)
    assert not (whole / dataset.ANSWERS).exists()
    process = subprocess.Popen([*command, killed], stderr=subprocess.DEVNULL, start_new_session=True)
    kept = killed / dataset.ANSWERS
    wait_for(lambda: (kept.exists() and kept.read_bytes().count(b"\n") > 4) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = kept.read_bytes()
    with kept.open("ab") as file:
        file.write(b'["cut sh')
    asked = subprocess.run([*command, killed], check=True, capture_output=True, text=True)
    assert asked.stderr == ""
    assert examples_of(killed) == examples_of(whole)
    assert before.count(b"\n") > 4


def test_answers_that_were_asked_for_otherwise_are_not_taken(tmp_path, labelled):
    labels = read_labels(labelled.labels, Objective.INSTRUCTIONS)
    corpus, kept = Corpus(labelled.corpus), tmp_path / "answers.jsonl"
    entries = labelled_entries(corpus, labels, "validation")[:1]
    functions = read_labelled(corpus, entries, labels, Objective.INSTRUCTIONS, {}, 1)
    cold = Answering(SHIPPED, 1, 0.0, 0, Form.FAST, 1)
    first = list(cold.on(corpus, functions, kept, lambda done, total: None))
    lines = kept.read_text().splitlines()
    warm = replace(cold, samples=3, temperature=1.5)
    assert len(list(warm.on(corpus, functions, kept, lambda done, total: None))) > 1
    assert kept.read_text().splitlines()[0] != lines[0]
    kept.write_text("\n".join([lines[0], json.dumps([functions[0].function, []])]) + "\n")  # taken as it is
    assert list(cold.on(corpus, functions, kept, lambda done, total: None)) == []
    assert len(first) == 1
