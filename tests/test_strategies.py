"""Strategies on the model in the box, real functions and the real compiler."""

from __future__ import annotations

import heapq
import itertools
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from compiling import CODEC, unoptimised

from secondpass import ir
from secondpass.engines.onnx import OnnxEngine
from secondpass.errors import EngineError, InputError
from secondpass.llvm.jobs import Outcome, Status
from secondpass.llvm.module import Module
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.manifest import SHIPPED, Manifest
from secondpass.prompt import Answer, Form, Objective, OptimizePrompt
from secondpass.strategies import NAMES, base
from secondpass.strategies.base import Budget, Function, Session
from secondpass.strategies.choice import choose
from secondpass.strategies.finishing import Finished
from secondpass.strategies.iterating import Iterate
from secondpass.strategies.portfolio import Portfolio
from secondpass.strategies.sampling import Sample, Then
from secondpass.strategies.searching import Search
from secondpass.strategies.single import Feedback, Single
from secondpass.strategies.tree import Beam, Priority, PriorityAfterFeedback
from secondpass.tuner.coreset import coreset
from secondpass.tuner.portfolio import shipped


@pytest.fixture(scope="module")
def engine():
    return OnnxEngine.load()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1) as box:
        yield box


@pytest.fixture(scope="module")
def functions():
    """The example's functions, the smallest first."""
    found = []
    with Module.parse(unoptimised(CODEC)) as module:
        for name, part in module.split():
            with part:
                found.append(Function(name, ir.normalise(part.to_text()), part.to_bitcode()))
    return sorted(found, key=lambda it: len(it.ir))


@pytest.fixture
def session(engine, functions, sandbox):
    return lambda budget=None, function=functions[1], engine=engine: Session(engine, function, sandbox, budget)


ALL = [
    Single(),
    Feedback(),
    Sample(12, 2.0, seed=3),
    Sample(4, 2.0, then=Then.GREEDY),
    Sample(4, 2.0, then=Then.SAMPLED),
    Iterate(3),
    Iterate(2, 1.5, starts=2),
    Priority(12),
    PriorityAfterFeedback(12),
    Beam(12),
    Portfolio(12),
]


def name_of(strategy):
    return f"{type(strategy).__name__}-{getattr(strategy, 'then', '')}".strip("-")


# What holds for all


@pytest.mark.parametrize("strategy", ALL, ids=name_of)
def test_every_attempt_is_compiled_and_counted(session, strategy):
    one = session()
    attempts = one.work(strategy)
    assert attempts and one.inferences == len(attempts)
    lists = {str(it.verdict.answer.passes) for it in attempts}
    assert one.compiles == len(lists)
    for it in attempts:
        assert it.verdict.valid
        assert it.verdict.target is not None and it.verdict.source > 0


@pytest.mark.parametrize("strategy", ALL, ids=name_of)
def test_a_strategy_gives_the_same_attempts_again(session, strategy):
    texts = [[it.completion.text for it in session().work(strategy)] for _ in range(2)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("strategy", ALL, ids=name_of)
def test_a_session_like_another_finds_the_same_without_reading_or_compiling_again(
    session, engine, functions, sandbox, strategy, monkeypatch
):
    alone, first = session(), session()
    alone.work(strategy)
    first.work(strategy)
    monkeypatch.setattr(engine, "start", None)
    monkeypatch.setattr(sandbox, "compile", None)
    again = Session(engine, functions[1], sandbox, like=first)
    assert again.work(strategy) == alone.attempts
    assert (again.inferences, again.compiles) == (alone.inferences, alone.compiles)
    assert again.spared > 0 == first.spared


def test_what_was_compiled_for_another_session_is_spared_once(functions, engine, sandbox):
    first = Session(engine, functions[1], sandbox)
    first.work(Sample(4, 0.2))
    once, twice = (Session(engine, functions[1], sandbox, like=first) for _ in range(2))
    once.work(Sample(4, 0.2))
    twice.work(Sample(4, 0.2))
    twice.work(Sample(4, 0.2))
    assert once.spared == twice.spared


@pytest.mark.parametrize("strategy", ALL[2:], ids=name_of)
def test_a_budget_of_answers_keeps_the_first_ones(session, strategy):
    every = [it.completion.text for it in session().work(strategy)]
    one = session(Budget(inferences=3))
    assert [it.completion.text for it in one.work(strategy)] == every[:3] or isinstance(strategy, Beam)
    assert one.inferences == 3 == len(one.attempts)


@pytest.mark.parametrize("strategy", [Sample(30, 2.0), Priority(30), Beam(30)], ids=name_of)
def test_a_budget_of_compiles_counts_distinct_lists(session, strategy):
    one = session(Budget(compiles=5))
    attempts = one.work(strategy)
    assert one.compiles == 5
    assert len({str(it.verdict.answer.passes) for it in attempts}) == 5


def test_a_budget_of_compiles_changes_no_sample_and_equal_lists_cost_nothing(session):
    every = session().work(Sample(40, 0.2))
    one = session(Budget(compiles=5))
    kept = one.work(Sample(40, 0.2))
    assert [it.completion.text for it in kept] == [it.completion.text for it in every[: len(kept)]]
    assert one.compiles == 5 < len(kept) < 40
    lists = {str(it.verdict.answer.passes) for it in kept}
    assert str(every[len(kept)].verdict.answer.passes) not in lists


@pytest.mark.parametrize("strategy", [Beam(5), Portfolio(5)], ids=name_of)
def test_answers_that_were_decoded_when_the_time_ended_are_compiled(session, monkeypatch, strategy):
    ticks = itertools.count()
    monkeypatch.setattr(base.time, "monotonic", lambda: float(next(ticks)))  # over at the second look
    assert len(session(Budget(seconds=1.5)).work(strategy)) == 5


def test_a_budget_of_seconds_ends_a_search(session):
    started = time.monotonic()
    assert session(Budget(seconds=2)).work(Search(100_000))
    assert time.monotonic() - started < 30


def test_a_budget_of_seconds_ends_between_answers_and_keeps_what_is_there(session):
    one, started = session(Budget(seconds=0.3)), time.monotonic()
    attempts = one.work(Sample(1_000, 2.0))
    assert attempts and len(attempts) < 1_000
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("limit", [{"inferences": 0}, {"compiles": -1}, {"seconds": 0.0}])
def test_a_budget_of_nothing_is_refused(limit):
    with pytest.raises(InputError, match="must be positive"):
        Budget(**limit)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sample(0),
        lambda: Sample(10_000),
        lambda: Sample(2, -1.0),
        lambda: Sample(2, 0.0),
        lambda: Sample(2, 11.0),
        lambda: Sample(2, seed=-1),
        lambda: Iterate(2, 1.0, seed=-1),
        lambda: Sample(2, top_k=0),
        lambda: Sample(2, top_p=0.0),
        lambda: Sample(2, top_p=1.1),
        lambda: Iterate(2, 1.0, top_p=-0.5),
        lambda: Priority(0),
        lambda: Priority(10_000),
        lambda: Beam(0),
        lambda: Portfolio(0),
        lambda: Iterate(0),
        lambda: Iterate(2, -0.5),
        lambda: Iterate(2, 0.0, starts=2),
    ],
)
def test_settings_that_make_no_sense_are_refused(make):
    with pytest.raises(InputError, match=r"ask for|give a number"):
        make()


@pytest.mark.parametrize("strategy", ALL, ids=name_of)
def test_of_a_function_that_is_too_long_a_part_is_read(session, functions, strategy):
    long = replace(functions[0], ir=functions[0].ir * 200)
    one = session(function=long)
    assert one.unread is None
    assert any(it.verdict.valid for it in one.work(strategy))
    assert one.unread is not None and one.unread.tokens > one.engine.context_length


@pytest.mark.parametrize("strategy", [Feedback(), Sample(2, 1.0, then=Then.GREEDY), Iterate()], ids=name_of)
def test_a_model_without_feedback_training_is_refused_by_name(session, tmp_path, strategy):
    out = shutil.copytree(SHIPPED, tmp_path / "model")
    replace(Manifest.read(out), name="deaf", takes_feedback=False).write(out)
    with pytest.raises(EngineError, match="'deaf' was not trained on feedback"):
        session(engine=OnnxEngine.load(out)).work(strategy)


@pytest.mark.parametrize("form", [Form.SHORT, Form.LONG])
def test_feedback_on_code_needs_a_model_that_writes_it(session, form):
    with pytest.raises(EngineError, match="was not trained to write code"):
        session().work(Feedback(form))


# Sampling and feedback


def test_sample_k_is_the_same_whatever_the_number_of_samples(session):
    few, many = session().work(Sample(5, 2.0)), session().work(Sample(105, 2.0))
    assert [it.completion.text for it in many[:5]] == [it.completion.text for it in few]


def test_a_search_may_be_silent_for_longer_than_a_list(engine, functions):
    with Sandbox(1, 0.3) as hasty:  # which waits for 5.3 seconds
        session = Session(engine, functions[-1], hasty, Budget(seconds=12))
        attempts = session.work(Search(20_000, 2))
        assert hasty.deaths == 0
    assert {it.made_by for it in attempts} == {"search"}


def test_of_a_search_that_fails_the_models_lists_are_left(session, monkeypatch):
    failed = Outcome(Status.CRASH, "of some pass")
    monkeypatch.setattr("secondpass.strategies.base.outcomes", lambda *_: iter([("", failed)]))
    attempts = session().work(Search(50, 3))
    assert len(attempts) == 3 and all(it.verdict.valid for it in attempts)


def test_the_second_turn_reads_only_its_own_tokens(session):
    one = session()
    first = one.answer()[0]
    one.judge([first], [0])
    reply = one.attempts[0].verdict.feedback(Form.FAST)
    tokens = len(one.engine.tokenizer.encode_feedback(reply)) + len(first.tokens)
    assert one.prompt.prefilled_tokens > 3 * tokens
    assert one.prompt.extend(first, reply).prefilled_tokens <= tokens


def test_no_feedback_is_given_where_the_count_was_right(session, functions):
    seen = set()
    for function in functions[:3]:  # the longer ones leave no room for a second answer
        attempts = session(function=function).work(Feedback())
        right = attempts[0].verdict.target_right
        assert len(attempts) == (1 if right else 2)
        assert [it.turn for it in attempts] == [0, 1][: len(attempts)]
        seen.add(right)
    assert False in seen


def test_iteration_stops_when_the_model_is_sure_or_right(session):
    attempts = session().work(Iterate(5))
    assert [it.turn for it in attempts] == list(range(len(attempts)))
    final = [it.verdict.target_right or bool(it.verdict.answer.sure) for it in attempts]
    assert not any(final[:-1])
    assert final[-1] or len(attempts) == 6


@pytest.mark.parametrize("then", list(Then))
def test_cut_to_one_token_all_samples_are_the_greedy_answer(session, then):
    samples = session().work(Sample(3, 2.0, then=then, top_k=1))
    greedy = session().work(Single() if then is Then.NOTHING else Feedback())
    assert {it.completion.text for it in samples} == {it.completion.text for it in greedy}


def test_iteration_cut_to_one_token_is_greedy(session):
    texts = [[it.completion.text for it in session().work(Iterate(2, *it))] for it in ((0.0,), (2.0, 0, Form.FAST))]
    cut = [it.completion.text for it in session().work(Iterate(2, 2.0, top_k=1))]
    assert cut == texts[0] != texts[1]


# Search


def test_priority_sampling_begins_greedily_and_never_repeats_a_list(session):
    attempts = session().work(Priority(40))
    assert attempts[0].completion.text == session().work(Single())[0].completion.text
    assert len({it.verdict.answer.passes for it in attempts}) == 40


def test_priority_sampling_expands_the_most_probable_prefix_each_time(session):
    """Against the algorithm written plainly: one token, one prefix, one answer at a time."""
    found = [it.completion.tokens for it in session().work(Priority(6))]
    assert found == plain_priority(session().prompt, 6)


def test_priority_sampling_after_feedback_is_that_of_the_longer_sequence(session):
    first, *others = session().work(PriorityAfterFeedback(5))
    assert first.completion == session().work(Single())[0].completion
    assert {(it.turn, it.sample) for it in others} == {(1, 0)}
    assert not any(it.verdict.answer.sure for it in others)
    prompt = session().prompt.extend(first.completion, first.verdict.feedback(Form.FAST))
    again = prompt.append([session().engine.grammar.try_again])
    assert [it.completion.tokens for it in others] == plain_priority(again, 4)


def plain_priority(prompt, n):
    queue, answers, number = [(0.0, 0, prompt)], [], 1
    while len(answers) < n:
        _, _, at = heapq.heappop(queue)
        while not at.ended:
            scores = at.next_log_probabilities(allowed_only=True)
            best = int(scores.argmax())
            if at.written.state.place.name == "LIST":
                for token in map(int, at.allowed()):
                    if token != best:
                        cost = -(at.written.log_probability + scores[token])
                        heapq.heappush(queue, (cost, number, at.append([token])))
                        number += 1
            at = at.append([best])
        answers.append(at.written.tokens)
    return answers


def test_a_portfolio_holds_the_coreset_s_lists_each_once(session):
    attempts = session().work(Portfolio(50))
    lists = [it.verdict.answer.passes for it in attempts]
    assert len(lists) == len(set(lists)) == 50
    assert set(lists) == set(coreset(Objective.INSTRUCTIONS, 50))


def test_a_portfolio_is_chosen_by_the_probabilities_of_whole_lists(session):
    """Against each list read alone, token by token."""
    table, one = shipped(Objective.INSTRUCTIONS), session()
    probable = []
    for words in table.lists:
        tokens = one.engine.grammar.tokens_of(words)
        probable.append(one.prompt.append(tokens).written.log_probability)
    expected = [table.lists[it] for it in table.order(probable, 8)]
    assert [it.verdict.answer.passes.words for it in one.work(Portfolio(8))] == expected


def test_a_portfolio_of_another_objective_is_refused(session, functions):
    with pytest.raises(InputError, match="no portfolio ships for the objective bytes"):
        session(function=replace(functions[1], objective=Objective.BYTES)).work(Portfolio(3))


def test_a_list_the_grammar_forbids_is_not_begun(session):
    tree = session().prompt.tree()
    sroa, unknown, empty, long = tree.begun_with([("sroa",), ("no-such-pass",), (), ("sroa",) * 99])
    assert sroa is not None and unknown is empty is long is None
    assert tree.finish([sroa])[0].written.tokens[: len(sroa.written.tokens)] == sroa.written.tokens


def test_beam_search_of_width_one_is_greedy(session):
    assert session().work(Beam(1))[0].completion.text == session().work(Single())[0].completion.text


def test_a_wider_beam_finds_lists_at_least_as_probable(session):
    def lists(n):
        return [list_probability(session().prompt, it) for it in session().work(Beam(n))]

    narrow, wide = lists(2), lists(16)
    assert max(wide) >= max(narrow) - 1e-6
    assert len(wide) == 16


def list_probability(prompt, attempt):
    """The logarithm of the probability of an answer's list, up to its counts."""
    words = Answer.parse(attempt.completion.text).passes.words
    tokens, at, total = attempt.completion.tokens, prompt, 0.0
    for token in tokens[1 : len(words) + 2]:  # behind `passes:`, which the prompt has read; with `count from`
        total += at.next_log_probabilities()[token]
        at = at.append([token])
    return total


def test_branches_that_read_differently_many_tokens_share_a_step(engine, functions):
    prompt = engine.start(OptimizePrompt(functions[1].ir))
    tokens = prompt.answer(1)[0].tokens[1:6]
    begun = [prompt, prompt.append(tokens[:2]), prompt.append(tokens[:4])]
    following = np.array([int(tokens[0]), int(tokens[2]), int(tokens[4])])
    logits, owns = engine.network.read_one(following, prompt.prefix, [it.own for it in begun])
    for row, (at, token) in enumerate(zip(begun, following)):
        alone = at.append([int(token)])
        shifted = logits[row] - logits[row].max()
        found = shifted - np.log(np.exp(shifted.astype(np.float64)).sum())
        assert np.abs(found - alone.scores).max() < 1e-3
        assert owns[row].length == alone.own.length
        for one, other in zip(owns[row].values, alone.own.values):
            assert np.allclose(one.numpy(), other.numpy(), atol=1e-3)


def test_a_tree_begins_where_no_answer_is_begun(session):
    begun = session().prompt
    begun = begun.append([int(begun.allowed()[0])])
    with pytest.raises(EngineError, match="where none is begun"):
        begun.tree()


@pytest.mark.parametrize("compiles", [1, 12, 40])
def test_a_search_spends_its_compiles_and_no_more(session, compiles):
    one = session()
    attempts = one.work(Search(compiles))
    assert 0 < one.compiles <= compiles
    assert one.inferences == min(10, compiles)
    assert all(it.origin == "search" and it.verdict.target_right for it in attempts)


def test_a_search_is_no_worse_than_the_answers_it_begins_with(session, functions):
    for function in functions[:4]:
        answers = best_of(session(function=function).work(Priority(10)))
        assert best_of(session(function=function).work(Search(60))) <= answers


def best_of(attempts):
    return min(it.verdict.target for it in attempts)


def test_a_search_keeps_within_the_sessions_budget(session):
    one = session(Budget(compiles=15))
    assert one.work(Search(100)) and one.compiles <= 15


# Finished lists


@pytest.mark.parametrize("strategy", [Single(), Sample(4)], ids=name_of)
def test_a_finished_strategy_is_never_worse_and_often_better_for_one_list_more(session, functions, strategy):
    better = 0
    for function in functions:
        plain, finished = session(function=function), session(function=function)
        plain.work(strategy)
        attempts = finished.work(Finished(strategy))
        assert attempts[: len(plain.attempts)] == plain.attempts
        assert [it.origin for it in attempts[len(plain.attempts) :]] in ([], ["finish"])
        assert plain.compiles < finished.compiles <= 3 * plain.compiles + 16  # two a list, some a function
        assert best_of(attempts) <= best_of(plain.attempts)
        better += best_of(attempts) < best_of(plain.attempts)
    assert better >= 2


def test_finishing_keeps_within_the_budget(session):
    one = session(Budget(compiles=3))
    assert len(one.work(Finished(Priority(10)))) == one.compiles == 3


@pytest.mark.parametrize("compiles", [4, 6, 8, 11, 15])
def test_finishing_tries_no_more_lists_than_the_budget_allows(session, compiles):
    one = session(Budget(compiles=compiles))
    assert one.work(Finished(Priority(3)))
    assert 3 <= one.compiles <= compiles


def test_a_search_for_bytes_looks_for_bytes(engine, functions, sandbox):
    sizes = {objective: [] for objective in Objective}
    for function in functions[-4:]:
        for objective, found in sizes.items():
            one = Session(engine, function, sandbox, objective=objective)
            one.search([], 60, seed=1)
            found.append(min(native_size(function, it.verdict.answer.passes) for it in one.attempts))
    assert sum(sizes[Objective.BYTES]) < sum(sizes[Objective.INSTRUCTIONS])


def native_size(function, passes):
    with Module.parse(function.bitcode) as module:
        module.run(passes)
        return module.native_size


def test_finishing_needs_no_answers(session, functions):
    spent = session(Budget(inferences=3), functions[-1])
    assert spent.work(Finished(Sample(10)))[-1].origin == "finish"
    assert spent.inferences == 3


def test_finishing_ends_with_the_time(session, functions, monkeypatch):
    one, unhurried = session(Budget(seconds=600), functions[-1]), session(function=functions[-1])
    for it in (one, unhurried):
        it.work(Sample(4))
    monkeypatch.setattr(one, "_started", time.monotonic() - 600)
    before = one.compiles, unhurried.compiles
    unhurried.finish()
    with pytest.raises(base.Spent):
        one.finish()
    assert one.compiles == before[0] and unhurried.compiles > before[1]


# Names


@pytest.mark.parametrize("name", NAMES)
def test_every_name_means_a_strategy(session, name):
    one = session()
    assert one.work(choose(name, 1))
    assert one.inferences >= 1


@pytest.mark.parametrize(
    ("name", "answers", "temperature", "said"),
    [
        ("greedy", 1, None, "no strategy is called 'greedy'; there are single"),
        ("single", 2, None, "asks for no more than one answer"),
        ("priority", 5, 1.0, "'priority' does not sample"),
        ("sample", 5, 0.0, "give a number above 0"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(name, answers, temperature, said):
    with pytest.raises(InputError, match=said):
        choose(name, answers, temperature)


@pytest.mark.parametrize("name", NAMES)
def test_a_form_is_for_strategies_that_give_feedback(name):
    if "feedback" in name or name == "iterate":
        assert choose(name, 1, form=Form.LONG).strategy.form is Form.LONG
    else:
        with pytest.raises(InputError, match=f"'{name}' gives no feedback: leave the form out, or take 'feedback'"):
            choose(name, 1, form=Form.LONG)


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.9}], ids=lambda it: next(iter(it)))
@pytest.mark.parametrize("name", NAMES)
def test_a_cut_is_for_strategies_that_sample(name, cut):
    (setting,) = cut
    if name in ("sample", "sample-then-feedback", "feedback-then-sample"):
        assert getattr(choose(name, 2, **cut).strategy, setting) == cut[setting]
    elif name == "iterate":
        assert getattr(choose(name, 2, 1.0, **cut).strategy, setting) == cut[setting]
        with pytest.raises(InputError, match="greedy iteration does not sample: leave top_k and top_p out"):
            choose(name, 2, **cut)
    else:
        with pytest.raises(InputError, match=f"'{name}' does not sample: leave {setting} out, or take 'sample'"):
            choose(name, 1, **cut)
