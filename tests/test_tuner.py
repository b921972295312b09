"""The autotuner: every state once, nothing worse than -Oz, the same labels however often it is killed."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from compiling import CODEC, PROGRAM, ROOT, SECONDPASS, unoptimised

from secondpass import ir
from secondpass.errors import CorpusError, InputError, LLVMError
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import Objective
from secondpass.tuner import explorer as explorer_module
from secondpass.tuner import labels as labels_module
from secondpass.tuner import tune as tune_module
from secondpass.tuner.coreset import coreset, greedy_cover, shipped
from secondpass.tuner.explorer import Explorer
from secondpass.tuner.finish import Finish, finished
from secondpass.tuner.knowledge import Knowledge, Sampler
from secondpass.tuner.neighbours import Neighbours, neighbour
from secondpass.tuner.search import LONGEST, OZ, Budget, Found, Search
from secondpass.tuner.tails import Tails, tails
from secondpass.tuner.work import BroadcastUnit, Item, Searched, SearchUnit, Settings, after_death, culprit

WORDS = [entry.text for entry in VOCABULARY]
KNOWLEDGE = Knowledge().extended(
    [("default<O1>",), ("sroa", "gvn", "simplifycfg"), ("default<O2>", "gvn-hoist")], {("sroa", "gvn", "dse"): 3}
)
UNINTERRUPTED = Settings(Objective.INSTRUCTIONS, Knowledge(), Budget(40))
"""What the command line makes of the options of `command`."""
SETTINGS = Settings(Objective.INSTRUCTIONS, KNOWLEDGE, Budget(40), seed=1)


def functions():
    """The example programs' functions, as bitcode by name."""
    found = {}
    for path in (CODEC, *PROGRAM):
        with Module.parse(unoptimised(path)) as module:
            for name, part in module.split():
                with part:
                    found[name] = part.to_bitcode()
    return found


FUNCTIONS = functions()
LONG = "run_command"


def counted(bitcode, words):
    """The instructions that a list leaves, compiled in one piece."""
    with Module.parse(bitcode) as module:
        module.run(PassList.of(*words))
        return module.instruction_count


def random_list(rng):
    return tuple(rng.choice(WORDS) for _ in range(rng.randint(1, 10)))


# Explorer


def test_a_walk_ends_where_the_whole_list_does():
    rng = random.Random(3)
    for name in sorted(FUNCTIONS)[:12]:
        with Explorer(FUNCTIONS[name], Objective.INSTRUCTIONS) as explorer:
            for _ in range(12):
                words = random_list(rng)
                assert explorer.walk(words).instructions == counted(FUNCTIONS[name], words), words


def test_a_function_that_grows_without_measure_is_left_alone(monkeypatch):
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        larger = next(word for word in WORDS if explorer.walk((word,)).instructions > explorer.root.instructions)
        monkeypatch.setattr(explorer_module, "_GROWN", 1)
        monkeypatch.setattr(explorer_module, "_GROWN_BY", 0)
        with pytest.raises(LLVMError, match="it grows from"):
            explorer.walk((larger,))
        assert Search(explorer).try_list((larger, "default<O1>")) is None
        assert Search(explorer).try_list(("default<O1>",)) is not None


def test_a_pass_that_kills_is_kept_away_from_its_state_whatever_leads_there():
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        explorer.forbid(("sroa", "gvn"))
        with pytest.raises(LLVMError, match="gvn"):
            explorer.walk(("sroa", "sroa", "gvn"))  # the second changes nothing
        assert explorer.walk(("sroa", "dse")) is not explorer.root
        assert explorer.walk(("gvn",)) is not explorer.root
        explorer.forbid(("sroa", "simplifycfg"))
        with pytest.raises(LLVMError, match="early-cse"):
            explorer.walk(("sroa", "early-cse"))


def test_a_pass_that_kills_in_two_places_is_kept_away_from_all():
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        explorer.forbid(("gvn",))
        explorer.forbid(("gvn",))
        assert explorer.walk(("sroa", "gvn")) is not explorer.root
        explorer.forbid(("sroa", "dse", "gvn"))
        with pytest.raises(LLVMError, match="gvn"):
            explorer.walk(("sroa", "simplifycfg", "gvn"))


def test_a_death_of_memory_is_laid_at_the_pass_at_once_any_other_when_it_comes_again():
    last_words = "\nrunning: sroa gvn\n"
    item = after_death(Item("f"), Outcome(Status.CRASH, last_words=last_words))
    assert item is not None and not item.banned
    again = after_death(item, Outcome(Status.CRASH, last_words=last_words))
    full = after_death(Item("f"), Outcome(Status.MEMORY, last_words=last_words))
    assert again is not None and full is not None
    assert again.banned == full.banned == {("sroa", "gvn")}
    assert after_death(Item("f"), Outcome(Status.MEMORY, last_words=f"\nrunning: {OZ[0]}\n")) is None


def test_the_passes_of_a_shared_prefix_run_once():
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        explorer.walk(("sroa", "gvn", "simplifycfg"))
        steps = explorer.steps
        explorer.walk(("sroa", "gvn", "dse"))
        assert explorer.steps == steps + 1
        assert explorer.known(("sroa", "gvn")) is explorer.walk(("sroa", "gvn"))
        assert explorer.known(("gvn", "sroa")) is None
        assert explorer.steps == steps + 1


def test_a_pass_that_changes_nothing_leads_back_and_is_not_useful():
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        state = explorer.walk(("sroa",))
        assert explorer.walk(("sroa", "sroa")) is state
        assert explorer.useful(("sroa", "sroa", "lower-constant-intrinsics", "simplifycfg")) == ("sroa", "simplifycfg")


def test_states_whose_modules_were_dropped_are_made_again(monkeypatch):
    monkeypatch.setattr("secondpass.tuner.explorer._HELD_INSTRUCTIONS", 1)
    rng = random.Random(5)
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        for _ in range(15):
            words = random_list(rng)
            assert explorer.walk(words).instructions == counted(FUNCTIONS[LONG], words), words


def test_bytes_are_those_of_the_native_code():
    with Explorer(FUNCTIONS[LONG], Objective.BYTES) as explorer, Module.parse(FUNCTIONS[LONG]) as module:
        module.run_oz()
        assert explorer.value(explorer.walk(OZ)) == module.native_size == explorer.confirm(OZ)


def test_a_list_that_depends_on_addresses_has_the_worst_of_several_values(monkeypatch):
    counts = iter([9, 7, 8, 7, 7, 5])
    monkeypatch.setattr(Module, "instruction_count", property(lambda _: next(counts)))
    explorer = Explorer.__new__(Explorer)
    with Module.parse(FUNCTIONS[LONG]) as module:
        explorer._module, explorer._objective, explorer._seconds = module, Objective.INSTRUCTIONS, 0.0
        assert explorer.confirm(("mem2reg", "gvn-sink")) == 9
        assert explorer.confirm(("mem2reg",)) == 5


# Knowledge


def test_draws_follow_the_winners_and_leave_no_pass_out():
    sampler = Sampler(Knowledge().extended((), {("sroa", "gvn"): 1000.0}), WORDS)
    rng = random.Random(1)
    after = Counter(sampler.after("sroa", rng) for _ in range(4000))
    assert after.most_common(1)[0][0] == "gvn"
    assert after["gvn"] > 2000
    assert len(after) > 0.9 * len(WORDS)
    assert {sampler.any(rng) for _ in range(4000)} == set(WORDS)


def test_passes_that_the_loaded_llvm_lacks_are_never_drawn():
    sampler = Sampler(Knowledge().extended((), {("sroa", "gvn"): 10.0}), [word for word in WORDS if word != "gvn"])
    rng = random.Random(1)
    assert "gvn" not in {draw for _ in range(500) for draw in (sampler.step("sroa", rng), sampler.any(rng))}


def test_equal_knowledge_has_an_equal_digest_and_other_knowledge_another():
    assert KNOWLEDGE.digest == KNOWLEDGE.extended(KNOWLEDGE.lists, {}).digest
    assert KNOWLEDGE.digest != KNOWLEDGE.extended(KNOWLEDGE.lists, {("dse",): 1}).digest


# Search


def searched(name, settings=SETTINGS, **item):
    with Sandbox(1) as sandbox:
        job = Job(FUNCTIONS[name], (Item(name, **item).to_text(),), name, each=SearchUnit(settings))
        return sandbox.compile(job)[0]


def test_what_is_reported_is_what_the_compiler_gives_and_never_worse_than_oz():
    for name in sorted(FUNCTIONS)[::4]:
        result = searched(name)
        assert isinstance(result, Searched)
        assert result.oz == counted(FUNCTIONS[name], OZ)
        assert result.found[0].value <= result.oz
        assert [it.value for it in result.found] == [counted(FUNCTIONS[name], it.passes) for it in result.found]
        assert len({it.passes for it in result.found}) == len(result.found) <= SETTINGS.budget.others + 1


def test_the_lists_that_are_reported_leave_code_that_differs():
    several = 0
    for name in sorted(FUNCTIONS)[::4]:
        left = []
        for found in searched(name).found:
            with Module.parse(FUNCTIONS[name]) as module:
                module.run(PassList.of(*found.passes))
                left.append(ir.normalise(module.to_text()))
        assert len(set(left)) == len(left)
        several += len(left) > 1
    assert several > 3


def test_tails_are_tried_behind_each_new_best_and_the_next_best():
    tails_, tried = (("gvn",), ("dse", "adce"), ("simplifycfg",)), []

    class Recorded(Search):
        def try_list(self, words):
            tried.append((self.best, words))
            return super().try_list(words)

    lists = [("sroa",), ("mem2reg", "instcombine<no-verify-fixpoint>"), ("default<O1>",)]
    knowledge = replace(Knowledge().extended(lists, {}), tails=Tails(others=tails_))
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        search = Recorded(explorer)
        search.run(knowledge, Sampler(knowledge, WORDS), Budget(150), random.Random(3))
        (best, first), (_, second) = tried[len(lists) + 1 :][:2]
        assert explorer.walk(first[:-1]).instructions == best.instructions < explorer.root.instructions
        assert first[:-1] != second[:-2] != ()
    asked = {}
    for best, words in tried[len(lists) + 1 :]:
        asked.setdefault(best, []).append(words)
    assert len(asked) > 1
    for words in asked.values():
        assert all(it[-len(tail) :] == tail for it, tail in zip(words, tails_))


@pytest.mark.parametrize("objective", Objective)
def test_one_tail_is_tried_behind_everything_but_the_first_lists_unless_bytes_count(objective):
    tail, tried = ("instcombine<no-verify-fixpoint>", "simplifycfg"), []

    class Recorded(Search):
        def try_list(self, words):
            tried.append(words)
            return super().try_list(words)

    lists = [("sroa",), ("mem2reg",)]
    knowledge = replace(Knowledge().extended(lists, {("sroa", "gvn"): 1}), tails=Tails(tail))
    with Explorer(FUNCTIONS[LONG], objective) as explorer:
        Recorded(explorer).run(knowledge, Sampler(knowledge, WORDS), Budget(60), random.Random(3))
    assert tried[: 1 + len(lists)] == [OZ, *lists]
    proposed = tried[1 + len(lists) :]
    assert len(proposed) > 50
    assert max(map(len, proposed)) == LONGEST
    tailed = [words[-len(tail) :] == tail for words in proposed]
    assert all(tailed) if objective is Objective.INSTRUCTIONS else sum(tailed) < 5


def test_winners_are_mostly_those_of_the_functions_most_like_this_one():
    tried, probe, near, far = [], ("sroa",), ("sroa", "gvn"), ("sroa", "dse")

    class Recorded(Search):
        def try_list(self, words):
            tried.append(words)
            return super().try_list(words)

    def share(neighbours):
        tried.clear()
        with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
            search = Recorded(explorer)
            search.run(knowledge, Sampler(knowledge, WORDS), Budget(60), random.Random(3), (), neighbours)
        return tried.count(near) / (tried.count(near) + tried.count(far))

    knowledge = Knowledge().extended([probe], {near: 1, far: 1})
    oz, reached = (counted(FUNCTIONS[LONG], words) for words in (OZ, probe))
    alike, other = neighbour(oz, [reached], oz, {near: oz - 1}), neighbour(oz, [oz - 1], oz, {far: oz - 1})
    assert reached > oz
    assert 0.3 < share(None) < 0.7
    assert share(Neighbours((probe,), (alike, other))) > 0.72
    assert 0.3 < share(Neighbours((("gvn",),), (alike,))) < 0.7  # its probe was not tried


def test_the_same_seed_finds_the_same_and_more_compiles_find_no_less():
    assert searched(LONG).found == searched(LONG).found
    short = searched(LONG, replace(SETTINGS, budget=Budget(5)))
    long = searched(LONG, replace(SETTINGS, budget=Budget(120)))
    assert long.found[0].value <= short.found[0].value
    assert short.compiles < long.compiles


def test_minimising_ends_when_its_time_is_over():
    rng = random.Random(11)
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        search, shorter = Search(explorer), 0
        for words in [random_list(rng) for _ in range(10)]:
            if search.try_list(words) is not None:
                before = search.compiles
                useful = search.minimise(words, 0)
                assert useful == (explorer.useful(words) or words)
                assert search.compiles == before
                shorter += len(search.minimise(words)) < len(useful)
        assert shorter


def test_no_pass_of_the_best_list_is_superfluous():
    best = searched(LONG, replace(SETTINGS, budget=Budget(120))).found[0]
    shorter = [best.passes[:index] + best.passes[index + 1 :] for index in range(len(best.passes))]
    assert all(counted(FUNCTIONS[LONG], words) > best.value for words in shorter if words)


def test_a_search_that_stands_still_stops_early():
    patient = searched(LONG, replace(SETTINGS, budget=Budget(2000, patience=30)))
    assert patient.compiles < 2000


def test_a_banned_list_is_not_run_and_neither_is_what_begins_with_it():
    with Explorer(FUNCTIONS[LONG], Objective.INSTRUCTIONS) as explorer:
        search = Search(explorer, frozenset({("sroa", "gvn")}))
        assert search.try_list(("sroa", "gvn", "dse")) is None
        assert search.try_list(("sroa", "dse")) is not None
        assert explorer.known(("sroa", "gvn")) is None


def test_a_pass_that_takes_too_long_names_the_list_in_the_workers_last_words():
    result = searched(LONG, replace(SETTINGS, step_seconds=1e-5))
    assert type(result) is Outcome
    assert result.status is Status.TIMEOUT
    assert culprit(result.last_words) == OZ


def test_a_broadcast_takes_what_is_better_and_keeps_what_is_not():
    best = searched(LONG, replace(SETTINGS, budget=Budget(120))).found
    poor = (Found(OZ, counted(FUNCTIONS[LONG], OZ)),)
    with Sandbox(1) as sandbox:

        def broadcast(known, lists):
            item = Item(LONG, lists=lists, best=known)
            job = Job(FUNCTIONS[LONG], (item.to_text(),), LONG, each=BroadcastUnit(SETTINGS))
            return sandbox.compile(job)[0]

        improved = broadcast(poor, (("dce",), best[0].passes))
        assert improved.found[0].value == best[0].value < poor[0].value
        assert improved.compiles >= 2
        assert broadcast(best, (("dce",), ("sroa", "dce"))).found == best
        lucky = (Found(("mem2reg",), best[0].value - 1),)  # what it says now is not what it said
        assert broadcast(lucky, (best[0].passes,)).found[0].value <= best[0].value


# Coresets


def test_greedy_cover_takes_the_list_that_helps_most_and_then_what_it_leaves():
    values = {("a",): [8, 10, 10, 10], ("b",): [9, 9, 9, 10], ("c",): [10, 10, 10, 9], ("d",): [11, 9, 9, 10]}
    chosen = greedy_cover(values, [10, 10, 10, 10], 3)
    assert [words for words, _ in chosen] == [("b",), ("a",), ("c",)]
    assert [round(gain * 40) for _, gain in chosen] == [3, 4, 5]
    assert greedy_cover({("x",): [10, 11]}, [10, 10], 5) == []


@pytest.mark.parametrize("objective", list(Objective))
def test_the_shipped_coreset_is_well_formed(objective):
    lists = coreset(objective, 50)
    assert len(set(lists)) == 50
    assert OZ not in shipped(objective).lists
    with pytest.raises(InputError, match="50 lists ship"):
        coreset(objective, 51)


# Labels

LABEL = labels_module.Label("f" * 24, 10, (Found(("sroa", "gvn"), 8), Found(OZ, 10)), 40, 1)
arrow = pytest.importorskip("pyarrow", reason="labels need pyarrow: pip install secondpass[corpus]")


def test_labels_come_back_as_they_were_and_later_ones_win(tmp_path):
    path = tmp_path / "labels.parquet"
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS) as store:
        store.add(replace(LABEL, compiles=1))
        store.flush()
        store.add(LABEL)
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS) as store:
        assert store.labels == {LABEL.hash: LABEL}
        store.merge()
    assert labels_module.read_labels(path, Objective.INSTRUCTIONS) == {LABEL.hash: LABEL}
    assert list((tmp_path / "labels.parquet.parts").glob("*.parquet")) == []


def test_a_second_tuner_is_refused_while_the_first_lives(tmp_path):
    path = tmp_path / "labels.parquet"
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS), pytest.raises(InputError, match="another tuner"):
        labels_module.LabelStore(path, Objective.INSTRUCTIONS)
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS):
        pass


def test_a_second_tuner_is_refused_that_comes_by_a_link(tmp_path):
    path, link = tmp_path / "labels.parquet", tmp_path / "link.parquet"
    link.symlink_to(path)
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS), pytest.raises(InputError, match="another tuner"):
        labels_module.LabelStore(link, Objective.INSTRUCTIONS)
    with labels_module.LabelStore(link, Objective.INSTRUCTIONS) as store:
        store.add(LABEL)
        store.merge()
    assert link.is_symlink()
    assert labels_module.read_labels(path, Objective.INSTRUCTIONS) == {LABEL.hash: LABEL}


def test_labels_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to: Not a directory"):
        labels_module.LabelStore(tmp_path / "file" / "labels.parquet", Objective.INSTRUCTIONS)


@pytest.mark.parametrize(("name", "value"), [("llvm", "19.1.0"), ("vocabulary", 0), ("normal_form", 1)])
def test_labels_of_other_versions_are_refused_with_the_reason(tmp_path, monkeypatch, name, value):
    path = tmp_path / "labels.parquet"
    made = labels_module.versions(Objective.INSTRUCTIONS) | {name: value}
    monkeypatch.setattr(labels_module, "versions", lambda objective: made)
    labels_module.write_labels(path, [LABEL], Objective.INSTRUCTIONS)
    monkeypatch.undo()
    what = {"llvm": "LLVM"}.get(name, name.replace("_", " "))
    with pytest.raises(CorpusError, match=rf"made with {what} {value}"):
        labels_module.read_labels(path, Objective.INSTRUCTIONS)


def test_labels_for_the_other_objective_are_refused(tmp_path):
    path = tmp_path / "labels.parquet"
    labels_module.write_labels(path, [LABEL], Objective.BYTES)
    with pytest.raises(CorpusError, match="made with objective bytes, not instructions"):
        labels_module.read_labels(path, Objective.INSTRUCTIONS)


@pytest.mark.parametrize("damage", [b"", b"PAR1 but not really", None])
def test_a_damaged_label_file_is_named(tmp_path, damage):
    path = tmp_path / "labels.parquet"
    labels_module.write_labels(path, [LABEL], Objective.INSTRUCTIONS)
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(CorpusError, match=r"labels\.parquet: cannot be read"):
        labels_module.read_labels(path, Objective.INSTRUCTIONS)


# A whole corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The example programs as a corpus, made by the command."""
    out = tmp_path_factory.mktemp("corpus")
    subprocess.run(
        [SECONDPASS, "corpus", "files", CODEC, *PROGRAM, "--project", "examples", "--split", "train", "--out", out],
        check=True,
        capture_output=True,
    )
    return out


def command(corpus, out, *options):
    return [SECONDPASS, "tune", corpus, "--out", out, "--budget", "40", *map(str, options)]


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    """The labels of a run that nobody disturbed, and what it printed."""
    out = tmp_path_factory.mktemp("labels") / "labels.parquet"
    run = subprocess.run(command(corpus, out), capture_output=True, text=True, check=True)
    return labels_module.read_labels(out, Objective.INSTRUCTIONS), run.stdout


def test_every_function_of_a_corpus_gets_a_label(corpus, uninterrupted):
    from secondpass.corpus.store import Corpus

    labels, printed = uninterrupted
    opened = Corpus(corpus)
    assert labels.keys() == opened.entries.keys()
    assert f"{len(labels)} functions" in printed
    for key, label in labels.items():
        assert label.oz == opened.entries[key].oz
        assert label.best.value <= label.oz
        if "gvn-sink" not in label.best.passes:  # what it does depends on addresses, which this process has others of
            assert label.best.value == counted(opened.bitcode(key), label.best.passes)
    assert sum(label.gain for label in labels.values()) > 0


def test_a_killed_run_goes_on_to_the_same_labels(corpus, uninterrupted, tmp_path):
    out = tmp_path / "labels.parquet"
    kills = 0
    for _ in range(3):
        options = ["--resume"] if kills else []
        process = subprocess.Popen(command(corpus, out, *options), stdout=subprocess.DEVNULL)
        before = len(list((tmp_path / "labels.parquet.parts").glob("*.parquet"))) if kills else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if len(list((tmp_path / "labels.parquet.parts").glob("*.parquet"))) > before:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
        if kills == 1 and not out.exists():
            parts = (tmp_path / "labels.parquet.parts").glob("*.parquet")
            labelled = {key for part in parts for key in labels_module.read_labels(part, Objective.INSTRUCTIONS)}
            assert 0 < len(labelled) < len(uninterrupted[0])
    assert kills == 3
    for _ in range(2):
        run = subprocess.run(command(corpus, out, "--resume"), capture_output=True, text=True, check=True)
        assert labels_module.read_labels(out, Objective.INSTRUCTIONS) == uninterrupted[0]
    assert f"\n{len(uninterrupted[0])} of them had a label before and were not searched again" in run.stdout


def test_a_label_of_another_function_with_the_same_text_counts_for_nothing(corpus, uninterrupted, tmp_path):
    """Constants and callees are no part of the text; what -Oz leaves tells them apart."""
    from secondpass.corpus.store import Corpus

    opened, path = Corpus(corpus), tmp_path / "labels.parquet"
    stray = max(uninterrupted[0].values(), key=lambda label: label.oz)
    with labels_module.LabelStore(path, Objective.INSTRUCTIONS) as store:
        for label in uninterrupted[0].values():
            store.add(replace(label, oz=label.oz + 1) if label is stray else label)
        store.merge()
    true = labels_module.read_labels(path, Objective.INSTRUCTIONS, opened)
    assert true.keys() == uninterrupted[0].keys() - {stray.hash}
    run = subprocess.run(command(corpus, path, "--resume"), capture_output=True, text=True, check=True)
    assert f"\n{len(true)} of them had a label before and were not searched again" in run.stdout
    assert labels_module.read_labels(path, Objective.INSTRUCTIONS, opened)[stray.hash].oz == stray.oz


def test_winners_of_functions_that_came_later_are_tried_on_all(corpus, tmp_path, monkeypatch):
    from secondpass.corpus.store import Corpus

    monkeypatch.setattr(tune_module, "_FEWEST", 1)
    opened, path = Corpus(corpus), tmp_path / "labels.parquet"
    keys = sorted(opened.entries)
    few = keys[: len(keys) // 2]
    with Sandbox(2) as sandbox:

        def run(keys):
            with labels_module.LabelStore(path, Objective.INSTRUCTIONS) as store:
                tune_module.tune(opened, keys, store, SETTINGS, sandbox)
                return {key: store.labels[key] for key in keys}

        first = run(few)
        tried = []
        note = labels_module.LabelStore.note
        monkeypatch.setattr(labels_module.LabelStore, "note", lambda store, *it: tried.append(it) or note(store, *it))
        every = run(keys)
        (before,) = {label.broadcasts for label in first.values()}
        (after,) = {label.broadcasts for label in every.values()}
        assert 0 < before < after
        assert tried[0][1]["before"] == before
        lists = {tuple(words) for name, noted in tried[1:] for words in noted}
        assert lists
        for key in few:
            with Explorer(opened.bitcode(key), Objective.INSTRUCTIONS) as explorer:
                assert every[key].best.value <= min(filter(None, map(explorer.confirm, lists)))
        tried.clear()
        monkeypatch.setattr(sandbox, "run", lambda jobs: pytest.fail("there is nothing left to do"))
        assert run(keys) == every
        assert tried == []


def test_winners_of_two_runs_are_tried_on_the_functions_of_both(corpus, tmp_path, monkeypatch):
    from secondpass.corpus.store import Corpus

    monkeypatch.setattr(tune_module, "_FEWEST", 1)
    opened, path = Corpus(corpus), tmp_path / "labels.parquet"
    keys = sorted(opened.entries)[:12]
    with Sandbox(2) as sandbox:

        def run(keys):
            """What a run notes of its broadcasts."""
            noted = []
            note = labels_module.LabelStore.note
            with monkeypatch.context() as patch, labels_module.LabelStore(path, Objective.INSTRUCTIONS) as store:
                patch.setattr(labels_module.LabelStore, "note", lambda store, *it: noted.append(it) or note(store, *it))
                tune_module.tune(opened, keys, store, SETTINGS, sandbox)
                assert len({store.labels[key].broadcasts for key in keys}) == 1
            return noted

        assert run(keys[:6]) and run(keys[6:])  # each ends with rounds of its own
        assert run(keys)
        assert not run(keys)


def test_rounds_learn_from_earlier_ones_alone(corpus, tmp_path, monkeypatch):
    from secondpass.corpus.store import Corpus

    monkeypatch.setattr(tune_module, "_FIRST_ROUND", 8)
    rounds = []
    monkeypatch.setattr(tune_module, "SearchUnit", lambda settings: rounds.append(settings) or SearchUnit(settings))
    opened, found = Corpus(corpus), []
    for workers in (1, 2):
        with (
            Sandbox(workers) as sandbox,
            labels_module.LabelStore(tmp_path / f"{workers}.parquet", Objective.INSTRUCTIONS) as store,
        ):
            tune_module.tune(opened, list(opened.entries), store, SETTINGS, sandbox)
            found.append(dict(store.labels))
    assert found[0] == found[1]
    won = {found[0][key].best.passes for key in sorted(opened.entries)[:8] if found[0][key].gain}
    first, second = (it.knowledge.winners for it in rounds[:2])
    assert won
    assert all(second[words] > first.get(words, 0) for words in won)


def test_rounds_cover_every_function_once():
    for functions_ in (0, 1, 256, 257, 100_000):
        covered = [index for start, end in tune_module.rounds(functions_) for index in range(start, end)]
        assert covered == list(range(functions_))


def test_a_worker_that_is_killed_from_outside_changes_no_label(corpus, uninterrupted, tmp_path):
    from secondpass.corpus.store import Corpus

    opened = Corpus(corpus)
    with (
        Sandbox(1, reproducible=True) as sandbox,
        labels_module.LabelStore(tmp_path / "labels.parquet", Objective.INSTRUCTIONS) as store,
    ):
        killed = []

        def kill_once(what, done, total):
            if done == 3 and not killed:
                killed.extend(sandbox._workers)
                os.kill(killed[0], signal.SIGKILL)

        report = tune_module.tune(opened, list(opened.entries), store, UNINTERRUPTED, sandbox, kill_once)
        assert killed
        assert report.failed == {}
        assert store.labels == uninterrupted[0]


def test_what_a_worker_did_before_changes_no_outcome():
    sinking = (
        tuple("instcombine<max-iterations=4;no-verify-fixpoint> jump-threading gvn-sink default<O2>".split()),
        tuple("mem2reg gvn-sink default<O2>".split()),
    )
    item = Item("f", lists=sinking, best=(Found(OZ, 10_000),))
    before = Job(FUNCTIONS[LONG], (Item("g").to_text(),), each=SearchUnit(replace(SETTINGS, budget=Budget(3))))
    jobs = [Job(bitcode, (item.to_text(),), name, each=BroadcastUnit(SETTINGS)) for name, bitcode in FUNCTIONS.items()]
    plain = Job(FUNCTIONS[LONG], tuple(str(PassList.of(*words)) for words in sinking))
    found, counts = [], []
    for first in ((), (before,), (before, jobs[0], plain)):
        with Sandbox(1, reproducible=True) as sandbox:
            for job in first:
                sandbox.compile(job)
            found.append({job.name: outcome.found for job, (outcome,) in sandbox.run(jobs)})
            counts.append([it.instructions for it in sandbox.compile(plain)])
    assert found[0] == found[1] == found[2]
    assert any(found[0].values())
    assert counts[0] == counts[1] == counts[2]


# Finishing


@pytest.mark.parametrize("objective", list(Objective))
def test_a_finished_list_is_the_best_of_its_beginnings_and_of_what_the_tail_adds(objective):
    rng = random.Random(5)
    lists = {name: [random_list(rng) for _ in range(3)] for name in sorted(FUNCTIONS)[:8]}
    unit = Finish(objective, tails(objective))
    with Sandbox(1) as sandbox:
        outcomes = dict(finished(lists, FUNCTIONS.__getitem__, unit, sandbox))
        assert outcomes.keys() == lists.keys()
        better = 0
        for name, outcome in outcomes.items():
            (best,) = outcome.found
            with Explorer(FUNCTIONS[name], objective) as explorer:
                assert explorer.confirm(best.passes) == best.value
                ends = [explorer.confirm(words) for words in lists[name]]
                states = [state for words in lists[name] for state, _ in explorer.along((*words, *unit.tails.first))]
                near = min(state.instructions for state in states)
            assert best.value <= min(it for it in ends if it is not None)
            assert objective is Objective.BYTES or best.value <= near
            better += best.value < min(it for it in ends if it is not None)
    assert better >= 2


@pytest.mark.parametrize("objective", list(Objective))
def test_other_tails_lead_on_from_the_best_states(objective):
    lists = {name: [("sroa", "gvn"), ("mem2reg",)] for name in FUNCTIONS}
    values = []
    with Sandbox() as sandbox:
        for shipped in (Tails(tails(objective).first), tails(objective)):
            unit = Finish(objective, shipped)
            found = dict(finished(lists, FUNCTIONS.__getitem__, unit, sandbox))
            values.append({name: outcome.found[0].value for name, outcome in found.items()})
    before, after = values
    assert before.keys() == after.keys() == lists.keys()
    assert all(after[name] <= before[name] for name in lists)
    assert sum(after.values()) < sum(before.values())


def test_large_functions_get_fewer_other_tails(monkeypatch):
    others = tuple(("sroa", "gvn", "dse")[: number % 3 + 1] for number in range(12))
    unit, tried = Finish(Objective.INSTRUCTIONS, Tails((), others)), []
    ranked = [(1, ("dce",)), (2, ("adce",))]
    search = SimpleNamespace(ranked=lambda: iter(ranked), try_list=tried.append, compiles=0)
    for instructions, count in ((10, 12), (5_000, 6), (1_000_000, 2)):
        tried.clear()
        unit._follow(search, instructions, time.perf_counter())
        assert tried == [((("dce",), ("adce",))[number % 2][0], *others[number]) for number in range(count)]


def test_a_list_that_kills_its_worker_costs_no_other_list():
    lists = {LONG: [("mem2reg",), ("sroa", "trigger-crash-module")]}
    with Sandbox(1) as sandbox:
        ((name, outcome),) = finished(lists, FUNCTIONS.__getitem__, Finish(Objective.INSTRUCTIONS, Tails()), sandbox)
    assert (name, outcome.found[0].passes) == (LONG, ("mem2reg",))


def test_functions_that_nothing_survives_are_given_up_with_the_reason(corpus, tmp_path):
    from secondpass.corpus.store import Corpus

    opened = Corpus(corpus)
    keys = list(opened.entries)[:2]
    with (
        Sandbox(1) as sandbox,
        labels_module.LabelStore(tmp_path / "labels.parquet", Objective.INSTRUCTIONS) as store,
    ):
        report = tune_module.tune(opened, keys, store, replace(SETTINGS, step_seconds=1e-5), sandbox)
    assert report.functions == 0
    assert report.failed.keys() == set(keys)
    assert all("took longer" in reason for reason in report.failed.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", 0), "--budget must be positive"),
        (("--split", "test", "--split", "validation"), "holds no function of the split test or validation; ask for"),
        (("--largest", 0), "holds no function of at most 0 instructions; ask for others"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(corpus, tmp_path, options, said):
    out = tmp_path / "labels.parquet"
    run = subprocess.run(command(corpus, out, *options), capture_output=True, text=True)
    assert run.returncode == 2
    assert said in run.stderr
    assert not out.exists()


@pytest.fixture
def held_out(tmp_path):
    """A corpus without a training function."""
    (tmp_path / "one.c").write_text("int one(int x) { return x % 7 + 1; }\n")
    files = [SECONDPASS, "corpus", "files", tmp_path / "one.c", "--split", "test", "--out", tmp_path / "held-out"]
    subprocess.run(files, check=True, capture_output=True)
    return tmp_path / "held-out"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("learn_knowledge", "no list there beats -Oz on a training function"),
        ("learn_tails", "no training function of 15 to 400 instructions there"),
        ("learn_portfolio", "says nothing of the training functions"),
    ],
)
def test_nothing_is_learnt_from_no_training_functions(held_out, uninterrupted, tmp_path, script, said):
    """What ships stays."""
    labels, outcomes = tmp_path / "labels.parquet", ROOT / "data" / "outcomes-instructions.parquet"
    labels_module.write_labels(labels, uninterrupted[0].values(), Objective.INSTRUCTIONS)
    given = {"learn_knowledge": ("--labels", labels), "learn_portfolio": ("--outcomes", outcomes), "learn_tails": ()}
    shipped_files = sorted((ROOT / "src/secondpass/tuner/knowledge_data").iterdir())
    before = [path.read_bytes() for path in shipped_files]
    learn = [sys.executable, ROOT / "scripts" / f"{script}.py", "--corpus", held_out, *given[script]]
    run = subprocess.run(learn, capture_output=True, text=True)
    assert run.returncode == 2
    assert said in run.stderr.splitlines()[-1]
    assert [path.read_bytes() for path in shipped_files] == before


def test_confirmed_labels_are_those_that_hold_and_remember_their_broadcasts(corpus, uninterrupted, tmp_path):
    labels, out = tmp_path / "labels.parquet", tmp_path / "confirmed.parquet"
    given, sink = dict(uninterrupted[0]), ("gvn-sink", "sroa")
    lucky = max(given.values(), key=lambda label: label.oz)
    given[lucky.hash] = replace(lucky, found=(Found(sink, 1), *lucky.found))
    labels_module.write_labels(labels, given.values(), Objective.INSTRUCTIONS, "once")
    confirm = [sys.executable, ROOT / "scripts" / "confirm_labels.py", corpus, labels, "--out", out]
    run = subprocess.run(confirm, capture_output=True, text=True, check=True)
    assert "1 have another best list or value" in run.stdout
    confirmed = labels_module.read_labels(out, Objective.INSTRUCTIONS)
    assert {key: it.best for key, it in confirmed.items()} == {key: it.best for key, it in uninterrupted[0].items()}
    assert next(it.value for it in confirmed[lucky.hash].found if it.passes == sink) > lucky.best.value
    assert labels_module.broadcast_of(out) == "once"


def test_a_full_disk_is_named_with_the_mend(corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk]).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        (disk / "fill").write_bytes(bytes(8192))
        run = subprocess.run(command(corpus, disk / "labels.parquet"), capture_output=True, text=True)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert run.returncode == 2
    assert run.stderr.startswith(f"secondpass: {disk}/labels.parquet: cannot be written: No space left on device")
    assert "make room and go on with --resume" in run.stderr


def test_labels_that_are_there_are_not_overwritten_unasked(corpus, tmp_path):
    out = tmp_path / "labels.parquet"
    labels_module.write_labels(out, [LABEL], Objective.INSTRUCTIONS)
    run = subprocess.run(command(corpus, out), capture_output=True, text=True)
    assert run.returncode == 2
    assert "--resume goes on with them" in run.stderr


def test_a_command_beside_a_running_one_is_refused(corpus, tmp_path):
    out = tmp_path / "labels.parquet"
    (tmp_path / "labels.parquet.parts").mkdir()
    with (tmp_path / "labels.parquet.parts" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = subprocess.run(command(corpus, out), capture_output=True, text=True)
    assert run.returncode == 2
    assert "another tuner is writing these labels" in run.stderr
