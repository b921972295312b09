"""The grammar, and decoding under it: whatever the model's logits, every answer can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secondpass.engines.grammar import FIRST_ANSWER, LONGEST_NUMBER, SECOND_ANSWER, Grammar, Place, State
from secondpass.engines.sampling import Logits, Written, _choose, decode, log_probabilities
from secondpass.errors import EngineError
from secondpass.llvm.passes import PassList
from secondpass.prompt import (
    CODE_CLOSE,
    CODE_OPEN,
    COUNT_FROM,
    DOWN_TO,
    MARKERS,
    PASSES,
    SURE,
    TRY_AGAIN,
    Answer,
    flag,
    flags,
)

WORDS = ("sroa", "early-cse<memssa>", "simplifycfg", "default<O2>", "licm")
DIGITS = (*"0123456789", "10", "27", "05", "100", "123456", "1234567", "000")
TEXTS = (*MARKERS, *flags(WORDS), " -unknown", *DIGITS, "\n", "\n\n", " ", "define", "1a", "²")
IDS = {text: token for token, text in enumerate(TEXTS)}
LONGEST_LIST = 6
CODE_IDS = tuple(token for text, token in IDS.items() if text not in (*MARKERS, *flags(WORDS)))
GRAMMAR = Grammar(IDS, WORDS, LONGEST_LIST, CODE_IDS)


def text_of(tokens: Sequence[int]) -> str:
    return "".join(TEXTS[token] for token in tokens)


def ids_of(text: str) -> list[int]:
    """One of the ways to write a text in tokens: the longest token at each place."""
    ids: list[int] = []
    while text:
        longest = max((piece for piece in TEXTS if text.startswith(piece)), key=len)
        ids.append(IDS[longest])
        text = text[len(longest) :]
    return ids


class RandomModel:
    """Branches whose logits are a function of a branch's own tokens, and as wild as asked for."""

    def __init__(self, seed: int, spread: float) -> None:
        self.seed, self.spread = seed, spread
        self.rows: list[tuple[int, ...]] = [()]
        self.sizes: list[int] = []

    def after(self, tokens: tuple[int, ...]) -> Logits:
        generator = np.random.default_rng([self.seed, *tokens])
        return (generator.standard_normal(len(TEXTS)) * self.spread).astype(np.float32)

    def select(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]

    def step(self, tokens: NDArray[np.int64]) -> Logits:
        self.sizes.append(len(tokens))
        found = []
        for index, new in enumerate(tokens.tolist()):
            row = self.rows[index]
            found.append([self.after((*row, *new[: end + 1])) for end in range(len(new))])
            self.rows[index] = (*row, *new)
        return np.array(found)


def written(
    seed: int,
    n: int,
    *,
    temperature: float = 1.0,
    room: int = 50,
    start: State = FIRST_ANSWER,
    spread: float = 5.0,
    **cut: float,
) -> list[Written]:
    model = RandomModel(seed, spread)
    scores = log_probabilities(model.after(()))
    return decode(model, GRAMMAR, Written(start), scores, room, n=n, temperature=temperature, seed=seed, **cut)


lists = st.lists(st.sampled_from(WORDS), min_size=1, max_size=LONGEST_LIST + 2)
answers = st.builds(
    Answer,
    passes=lists.map(lambda words: PassList.of(*words)),
    source=st.integers(0, 10 ** (LONGEST_NUMBER + 1)),
    target=st.integers(0, 10 ** (LONGEST_NUMBER + 1)),
    sure=st.sampled_from((None, True, False)),
    code=st.sampled_from((None, "define\n")),
)


@given(
    st.integers(0, 2**32),
    st.integers(FIRST_ANSWER.shortest + 1, 40),
    st.sampled_from((0.0, 0.3, 1.0, 30.0)),
    st.sampled_from((FIRST_ANSWER, SECOND_ANSWER)),
    st.sampled_from((0.0, 1.0, 50.0)),
)
@settings(max_examples=150)
def test_every_answer_to_any_logits_is_read_and_fits(
    seed: int, room: int, temperature: float, start: State, spread: float
) -> None:
    for one in written(seed, 3, temperature=temperature, room=room, start=start, spread=spread):
        answer = Answer.parse(text_of(one.tokens))
        assert isinstance(answer, Answer)
        assert set(answer.passes.words) <= set(WORDS)
        assert 1 <= len(answer.passes) <= LONGEST_LIST
        assert (answer.sure is None) == (start == FIRST_ANSWER)
        assert answer.code is None
        assert max(answer.source, answer.target) < 10**LONGEST_NUMBER
        assert len(one.tokens) <= room
        assert GRAMMAR.accepts(one.tokens, start)


@given(answers)
@settings(max_examples=300)
def test_what_it_accepts_is_what_the_parser_reads_less_what_it_leaves_out(answer: Answer) -> None:
    left_out = (
        answer.code is not None
        or len(answer.passes) > LONGEST_LIST
        or max(answer.source, answer.target) >= 10**LONGEST_NUMBER
    )
    assert Answer.parse(answer.render()) == answer
    start = FIRST_ANSWER if answer.sure is None else SECOND_ANSWER
    assert GRAMMAR.accepts(ids_of(answer.render()), start) == (not left_out)


@given(answers)
@settings(max_examples=300)
def test_where_code_is_asked_for_it_accepts_answers_with_code_alone(answer: Answer) -> None:
    left_out = (
        answer.code is None
        or len(answer.passes) > LONGEST_LIST
        or max(answer.source, answer.target) >= 10**LONGEST_NUMBER
    )
    start = (FIRST_ANSWER if answer.sure is None else SECOND_ANSWER).with_code()
    assert GRAMMAR.accepts(ids_of(answer.render()), start) == (not left_out)


@st.composite
def nearly_answers(draw: st.DrawFn) -> list[int]:
    """The tokens of an answer with some of them gone, replaced, or others put in."""
    tokens = ids_of(draw(answers).render())
    start = draw(st.integers(0, len(tokens)))
    end = draw(st.integers(start, min(start + 1, len(tokens))))
    return [*tokens[:start], *draw(st.lists(st.integers(0, len(TEXTS) - 1), max_size=1)), *tokens[end:]]


@given(nearly_answers() | st.lists(st.integers(0, len(TEXTS) - 1), max_size=12))
@settings(max_examples=300)
def test_it_accepts_nothing_the_parser_cannot_read(tokens: list[int]) -> None:
    for start in (FIRST_ANSWER, SECOND_ANSWER, FIRST_ANSWER.with_code(), SECOND_ANSWER.with_code()):
        if GRAMMAR.accepts(tokens, start):
            assert isinstance(Answer.parse(text_of(tokens)), Answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "passes:\ncount from 3 down to 1\n",
        "passes: -sroa",
        "passes: -sroa\ncount from 3 down to 1",
        "passes: -sroa\ncount from 03 down to 1\n",
        "passes: -sroa\ncount from 05 down to 1\n",
        "passes: -sroa\ncount from 00 down to 1\n",
        "passes: -sroa\ncount from 1234567 down to 1\n",
        "passes: -sroa\ncount from  down to 1\n",
        "passes: -unknown\ncount from 3 down to 1\n",
        "passes: -sroa\ncount from 3 down to 1\n\n",
        "I am sure!\npasses: -sroa\ncount from 3 down to 1\n",
        "passes: -sroa\ncount from 3 down to 1\n<|end|>",
    ],
)
def test_a_first_answer_is_nothing_else(text: str) -> None:
    assert not GRAMMAR.accepts(ids_of(text))


def test_a_second_answer_begins_with_a_verdict_on_the_first() -> None:
    rest = "passes: -sroa\ncount from 0 down to 0\n"
    assert GRAMMAR.accepts(ids_of(SURE + rest), SECOND_ANSWER)
    assert GRAMMAR.accepts(ids_of(TRY_AGAIN + rest), SECOND_ANSWER)
    assert not GRAMMAR.accepts(ids_of(rest), SECOND_ANSWER)


def allowed_after(text: str, room: int = 100, *, code: bool = False) -> set[str]:
    state = FIRST_ANSWER.with_code() if code else FIRST_ANSWER
    for token in ids_of(text):
        state = GRAMMAR.advance(state, token)
    return {TEXTS[token] for token in GRAMMAR.allowed(state, room)}


def test_a_list_has_at_least_one_word_and_at_most_its_limit() -> None:
    assert allowed_after(PASSES) == set(flags(WORDS))
    assert allowed_after(PASSES + flag("sroa")) == {*flags(WORDS), COUNT_FROM}
    assert allowed_after(PASSES + flag("sroa") * LONGEST_LIST) == {COUNT_FROM}


def test_numbers_have_no_leading_zero_and_at_most_six_digits() -> None:
    head = f"{PASSES}{flag('sroa')}{COUNT_FROM}"
    assert allowed_after(head) == {*"0123456789", "10", "27", "100", "123456"}
    assert allowed_after(f"{head}0") == {DOWN_TO}
    assert allowed_after(f"{head}1005") == {*"0123456789", "10", "27", "05", DOWN_TO}
    assert allowed_after(f"{head}123456") == {DOWN_TO}


def test_an_answer_is_brought_to_its_end_where_room_grows_short() -> None:
    assert allowed_after(PASSES + flag("sroa"), room=6) == {*flags(WORDS), COUNT_FROM}
    assert allowed_after(PASSES + flag("sroa"), room=5) == {COUNT_FROM}
    assert allowed_after(f"{PASSES}{flag('sroa')}{COUNT_FROM}5", room=3) == {DOWN_TO}


@pytest.mark.parametrize("start", [FIRST_ANSWER, SECOND_ANSWER])
def test_the_first_answers_are_the_same_however_many_are_asked_for(start: State) -> None:
    many = written(7, 12, start=start)
    assert len({one.tokens for one in many}) > 6
    for n in (1, 2, 5):
        assert written(7, n, start=start) == many[:n]


# Code


@given(
    st.integers(0, 2**32),
    st.integers(0, 40),
    st.sampled_from((0.0, 0.3, 1.0, 30.0)),
    st.sampled_from((FIRST_ANSWER, SECOND_ANSWER)),
    st.sampled_from((0.0, 1.0, 50.0)),
)
@settings(max_examples=150)
def test_every_answer_with_code_is_read_and_fits(
    seed: int, more: int, temperature: float, first: State, spread: float
) -> None:
    start = first.with_code()
    room = start.shortest + more
    for one in written(seed, 3, temperature=temperature, room=room, start=start, spread=spread):
        answer = Answer.parse(text_of(one.tokens))
        assert isinstance(answer, Answer)
        assert answer.code is not None
        assert len(one.tokens) <= room
        assert GRAMMAR.accepts(one.tokens, start)
        opening = one.tokens.index(IDS[CODE_OPEN])
        assert set(one.tokens[opening + 1 : -1]) <= set(CODE_IDS)
        assert one.tokens[-1] == IDS[CODE_CLOSE]


@given(st.data(), st.sampled_from((FIRST_ANSWER, SECOND_ANSWER)), st.booleans(), st.integers(0, 30))
def test_an_answer_can_be_completed_wherever_it_stands(
    data: st.DataObject, start: State, code: bool, more: int
) -> None:
    state = start.with_code() if code else start
    room = state.shortest + more
    while not state.ended:
        assert state.shortest <= room
        token = data.draw(st.sampled_from(GRAMMAR.allowed(state, room).tolist()))
        state, room = GRAMMAR.advance(state, token), room - 1
    assert room >= 0
    assert GRAMMAR.allowed(state, room).tolist() == []


@given(st.data(), st.sampled_from((FIRST_ANSWER, SECOND_ANSWER)), st.booleans())
def test_the_shortest_answer_is_as_short_as_is_said(data: st.DataObject, start: State, code: bool) -> None:
    state = start.with_code() if code else start
    tokens = []
    for left in range(state.shortest, 0, -1):
        assert state.shortest == left
        tokens.append(data.draw(st.sampled_from(GRAMMAR.allowed(state, left).tolist())))
        state = GRAMMAR.advance(state, tokens[-1])
    assert state.ended
    assert isinstance(Answer.parse(text_of(tokens)), Answer)


COUNTED = "passes: -sroa\ncount from 3 down to 1\n"


def test_code_is_any_tokens_but_reserved_ones() -> None:
    code = {TEXTS[token] for token in CODE_IDS}
    assert allowed_after(COUNTED, code=True) == {CODE_OPEN}
    assert allowed_after(COUNTED + CODE_OPEN, code=True) == {*code, CODE_CLOSE}
    assert allowed_after(f"{COUNTED}{CODE_OPEN}define\n\n", code=True) == {*code, CODE_CLOSE}
    assert allowed_after(f"{COUNTED}{CODE_OPEN}define{CODE_CLOSE}", code=True) == set()
    assert allowed_after(COUNTED) == set()


def test_code_is_closed_where_room_grows_short() -> None:
    code = {TEXTS[token] for token in CODE_IDS}
    assert allowed_after(f"{COUNTED}{CODE_OPEN}define", room=2, code=True) == {*code, CODE_CLOSE}
    assert allowed_after(f"{COUNTED}{CODE_OPEN}define", room=1, code=True) == {CODE_CLOSE}
    assert allowed_after(f"{PASSES}{flag('sroa')}", room=7, code=True) == {COUNT_FROM}


def test_the_tokens_of_code_are_found_once() -> None:
    state = State(Place.CODE, code=True)
    assert GRAMMAR.allowed(state, 5) is GRAMMAR.allowed(state, 500)


def test_an_answer_that_ended_with_its_counts_goes_on_with_code() -> None:
    state = FIRST_ANSWER
    for token in ids_of(COUNTED):
        state = GRAMMAR.advance(state, token)
    assert state.ended
    asked = FIRST_ANSWER.with_code()
    for token in ids_of(COUNTED):
        asked = GRAMMAR.advance(asked, token)
    assert state.with_code() == asked
    assert not asked.ended


def test_the_counts_of_an_answer_are_the_same_with_and_without_code() -> None:
    for one, other in zip(written(7, 5), written(7, 5, start=FIRST_ANSWER.with_code()), strict=True):
        assert other.tokens[: len(one.tokens)] == one.tokens


def test_answers_join_the_batch_where_they_part_and_leave_it_when_they_are_complete() -> None:
    model = RandomModel(3, 5.0)
    decode(model, GRAMMAR, Written(FIRST_ANSWER), log_probabilities(model.after(())), 50, n=12, temperature=1.0)
    assert model.sizes[0] == 1  # all begin alike
    assert 1 <= model.sizes[-1] < max(model.sizes) <= 12


def test_greedy_answers_are_decoded_once() -> None:
    model = RandomModel(3, 5.0)
    found = decode(model, GRAMMAR, Written(FIRST_ANSWER), log_probabilities(model.after(())), 50, n=4)
    assert set(model.sizes) == {1}
    assert found == [found[0]] * 4


def test_a_sampled_token_follows_the_renormalised_distribution() -> None:
    state = Written(GRAMMAR.advance(FIRST_ANSWER, IDS[PASSES]))
    model = RandomModel(1, 1.0)
    scores = log_probabilities(model.after(()))
    found = decode(model, GRAMMAR, state, scores, 50, n=2000, temperature=2.0, seed=11)
    listed = [IDS[text] for text in flags(WORDS)]
    expected = np.exp(scores[listed] / 2)
    counts = np.array([sum(one.tokens[0] == token for one in found) for token in listed])
    assert np.allclose(counts / 2000, expected / expected.sum(), atol=0.04)


# Top-k and top-p

logits = st.lists(st.integers(-40, 0), min_size=1, max_size=12).map(lambda it: log_probabilities(np.array(it) / 4))
temperatures = st.sampled_from((0.1, 0.7, 1.0, 3.0))
seeds = st.integers(0, 2**32)


def drawn(scores: NDArray[np.float64], seed: int, **settings: float | None) -> list[int]:
    generator = np.random.default_rng(seed)
    return [_choose(scores, generator, **settings) for _ in range(20)]


@given(logits, seeds, temperatures, st.integers(1, 14))
def test_nothing_outside_the_top_k_is_chosen(scores, seed, temperature, k) -> None:
    least = np.sort(scores)[::-1][: min(k, len(scores))][-1]
    chosen = set(drawn(scores, seed, temperature=temperature, top_k=k))
    assert all(scores[it] >= least for it in chosen)
    assert len(chosen) <= k


@given(logits, seeds, temperatures, st.floats(0.01, 1, exclude_max=True))
def test_nothing_outside_the_nucleus_is_chosen(scores, seed, temperature, p) -> None:
    shares = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
    for it in drawn(scores, seed, temperature=temperature, top_p=p):
        assert shares[shares > shares[it]].sum() < p + 1e-9  # the more probable ones alone are not enough


@given(logits, seeds, temperatures)
def test_the_nucleus_is_of_what_top_k_leaves(scores, seed, temperature) -> None:
    ranked = np.sort(scores)[::-1][:2]
    share = 1 / np.exp((ranked - ranked[0]) / temperature).sum()
    chosen = drawn(scores, seed, temperature=temperature, top_k=2, top_p=share * 0.999)
    assert set(chosen) == {int(scores.argmax())}


@given(logits, seeds, temperatures)
def test_top_k_of_one_is_greedy(scores, seed, temperature) -> None:
    assert set(drawn(scores, seed, temperature=temperature, top_k=1)) == {int(scores.argmax())}


@given(logits, seeds, temperatures)
def test_what_cuts_nothing_changes_no_draw(scores, seed, temperature) -> None:
    off = drawn(scores, seed, temperature=temperature)
    assert drawn(scores, seed, temperature=temperature, top_p=1.0) == off
    assert drawn(scores, seed, temperature=temperature, top_k=len(scores)) == off


@given(seeds)
@settings(max_examples=20)
def test_answers_of_top_k_one_are_the_greedy_answer(seed: int) -> None:
    greedy = [it.tokens for it in written(seed, 3, temperature=0.0)]
    assert [it.tokens for it in written(seed, 3, temperature=2.0, top_k=1)] == greedy
    assert [it.tokens for it in written(seed, 3, temperature=2.0, top_p=1e-6)] == greedy


@pytest.mark.parametrize("start", [FIRST_ANSWER, SECOND_ANSWER])
def test_the_log_probability_is_the_models_own(start: State) -> None:
    for one in written(5, 3, start=start):
        model = RandomModel(5, 5.0)
        steps = [log_probabilities(model.after(one.tokens[:end]))[token] for end, token in enumerate(one.tokens)]
        assert one.log_probability == pytest.approx(sum(steps))


def test_a_marker_or_word_without_a_token_is_named() -> None:
    with pytest.raises(EngineError, match="' -gvn'"):
        Grammar(IDS, ("gvn",))
    with pytest.raises(EngineError, match="'passes:'"):
        Grammar({text: token for text, token in IDS.items() if text != PASSES}, WORDS)
    with pytest.raises(EngineError, match="a word at least"):
        Grammar(IDS, ())
