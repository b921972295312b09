"""The engine in the box, on a small model with random weights that went through the real export."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export needs torch (extra: train)")
pytest.importorskip("onnx", reason="the export needs onnx (extra: train)")

from secondpass.engines import onnx_network  # noqa: E402
from secondpass.engines.base import Completion  # noqa: E402
from secondpass.engines.grammar import FIRST_ANSWER  # noqa: E402
from secondpass.engines.onnx import OnnxEngine, OnnxSequence  # noqa: E402
from secondpass.engines.onnx_network import Cache  # noqa: E402
from secondpass.errors import EngineError, ModelError, PromptTooLong  # noqa: E402
from secondpass.llvm.passes import PassList  # noqa: E402
from secondpass.model import llama  # noqa: E402
from secondpass.model.export import export, export_checkpoint, quantise  # noqa: E402
from secondpass.model.manifest import MANIFEST, NETWORK, SHIPPED, TOKENIZER, Manifest  # noqa: E402
from secondpass.model.presets import Shape  # noqa: E402
from secondpass.model.tokenizer import Tokenizer  # noqa: E402
from secondpass.model.unpack import unpack  # noqa: E402
from secondpass.prompt import (  # noqa: E402
    ANSWER,
    CODE_CLOSE,
    CODE_OPEN,
    PASSES,
    SURE,
    Answer,
    CodeFinding,
    Feedback,
    Form,
    OptimizePrompt,
    flag,
)

IR = """\
define i32 @total(ptr %0, i32 %1) {
  %3 = alloca ptr
  store ptr %0, ptr %3
  %4 = load i32, ptr %0
  %5 = add nsw i32 %4, %1
  ret i32 %5
}
"""
PROMPT = OptimizePrompt(IR)
FEEDBACK = Feedback(Form.FAST, None, 6, 4, source_right=False, target_right=False)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([IR.replace("total", f"total{number}") for number in range(50)], 700)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> llama.LlamaForCausalLM:
    shape = Shape(
        vocabulary=tokenizer.size, context=256, width=64, layers=3, heads=4, key_value_heads=2, feed_forward=176
    )
    model = llama.initial(shape, end=None, seed=1).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:  # trained weights are larger than initial ones
            parameter.data *= 4
    return model


@pytest.fixture(scope="module")
def directory(model: llama.LlamaForCausalLM, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    export(model, tokenizer, out, name="random")
    return out


@pytest.fixture(scope="module")
def engine(directory: Path) -> OnnxEngine:
    return OnnxEngine.load(directory, longest_list=12)


@pytest.fixture(scope="module")
def coder(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    """The same model, said to write code."""
    out = Path(shutil.copytree(directory, tmp_path_factory.mktemp("coder") / "model"))
    replace(Manifest.read(out), writes_code=True).write(out)
    return OnnxEngine.load(out, longest_list=12)


def reference(model: llama.LlamaForCausalLM, tokens: list[int]) -> np.ndarray:
    """Log probabilities after each token, by torch in float32."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([tokens])).logits[0], dim=-1).double().numpy()


@pytest.fixture(scope="module")
def rounded(model: llama.LlamaForCausalLM) -> llama.LlamaForCausalLM:
    """The same model with the weights the export rounds them to."""
    copy = deepcopy(model)
    for parameter in copy.parameters():
        if parameter.dim() == 2:
            integers, scales = quantise(parameter.detach().numpy())
            parameter.data = torch.from_numpy(integers * scales[:, None])
    return copy


def test_the_network_computes_what_torch_computes(engine: OnnxEngine, rounded: llama.LlamaForCausalLM) -> None:
    ids = engine.tokenizer.encode_prompt(PROMPT)
    empty = engine.network.empty(1)
    logits, _ = engine.network.step(np.array([ids]), empty, empty)
    expected = reference(rounded, ids)
    shifted = logits[0] - logits[0].max(axis=-1, keepdims=True)
    found = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    assert np.abs(found - expected).max() < 1e-3
    assert (found.argmax(-1) == expected.argmax(-1)).all()


def test_subnormals_that_count_as_zero_change_nothing(engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = engine.tokenizer.encode_prompt(PROMPT)
    empty = engine.network.empty(1)
    flushed, _ = engine.network.step(np.array([ids]), empty, empty)
    monkeypatch.setattr(onnx_network, "subnormals_are_zero", nullcontext)
    exact, _ = engine.network.step(np.array([ids]), empty, empty)
    assert (flushed == exact).all()


def test_a_network_that_is_not_quantised_computes_exactly_what_torch_computes(
    model: llama.LlamaForCausalLM, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path, name="exact", quantised=False)
    engine = OnnxEngine.load(tmp_path, longest_list=12)
    sequence = engine.start(PROMPT)
    ids = engine.tokenizer.encode_prompt(PROMPT)
    for one in sequence.answer(3, temperature=1.0):
        rows = reference(model, [*ids, *one.tokens])[len(ids) - 1 : -1]
        assert one.log_probability == pytest.approx(rows[np.arange(len(one.tokens)), list(one.tokens)].sum(), abs=1e-3)


def test_quantised_weights_keep_to_seven_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    weight[3] = 0
    integers, scales = quantise(weight)
    assert np.abs(integers).max() == 63
    assert np.allclose(integers * scales[:, None], weight, atol=np.abs(weight).max() / 63 / 2 + 1e-6)
    assert (integers[3] == 0).all()


def test_an_exported_model_becomes_a_checkpoint_again(
    directory: Path, rounded: llama.LlamaForCausalLM, tmp_path: Path
) -> None:
    shape = unpack(directory, tmp_path / "checkpoint")
    assert shape == llama.shape_of(rounded.config)
    found = dict(llama.load(tmp_path / "checkpoint").named_parameters())
    for name, parameter in rounded.named_parameters():
        torch.testing.assert_close(found[name], parameter, rtol=1e-6, atol=0)
    export_checkpoint(tmp_path / "checkpoint", tmp_path / "again")
    for name in (NETWORK, TOKENIZER, MANIFEST):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()


def test_a_network_that_is_not_quantised_is_not_unpacked(
    model: llama.LlamaForCausalLM, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    export(model, tokenizer, tmp_path / "exact", name="exact", quantised=False)
    with pytest.raises(ModelError, match=r"exact/model.onnx is not a quantised network"):
        unpack(tmp_path / "exact", tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_every_answer_can_be_read(engine: OnnxEngine) -> None:
    for one in engine.start(PROMPT).answer(10, temperature=1.0):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert answer.render() == one.text
        assert answer.sure is None
        assert len(answer.passes) <= 12
        assert engine.tokenizer.decode(one.tokens) == one.text


def test_the_first_answers_are_the_same_however_many_are_asked_for(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    many = sequence.answer(10, temperature=1.0, seed=3)
    assert len({one.text for one in many}) > 5
    for n in (1, 2, 3, 7):
        assert sequence.answer(n, temperature=1.0, seed=3) == many[:n]


def test_answers_that_are_the_same_so_far_are_read_once(engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence, step, shapes = engine.start(PROMPT), engine.network.step, list[tuple[int, int]]()

    def counted(tokens: np.ndarray, *caches: Cache) -> tuple[np.ndarray, Cache]:
        shapes.append(tokens.shape)
        return step(tokens, *caches)

    monkeypatch.setattr(engine.network, "step", counted)
    many, read = sequence.answer(30, temperature=0.5, seed=3), len(sequence.opening)
    for branches, tokens in shapes:
        read += tokens
        assert branches == len({it.tokens[:read] for it in many if len(it.tokens) > read})
    assert max(branches for branches, _ in shapes) > shapes[0][0] > 1


def test_every_function_has_draws_of_its_own(engine: OnnxEngine) -> None:
    """Hot enough, a draw alone decides: were it the seed's alone, all functions would have the same answers."""
    prompts = [OptimizePrompt(IR.replace("total", name)) for name in ("one", "two", "three")]
    hot = [tuple(it.tokens[:4] for it in engine.start(prompt).answer(4, temperature=1e6)) for prompt in prompts]
    assert len(set(hot)) == 3
    sequence = engine.start(PROMPT)
    first = sequence.answer()[0]
    extended = [sequence.extend(first, replace(FEEDBACK, target=target)) for target in (4, 5)]
    assert extended[0].answer(4, 1e6)[0].tokens[1:] != extended[1].answer(4, 1e6)[0].tokens[1:]


def test_what_ran_before_changes_no_answer(engine: OnnxEngine) -> None:
    first = engine.start(PROMPT).answer(3, temperature=1.0, seed=8)
    sequence = engine.start(PROMPT)
    assert sequence.answer(3, temperature=1.0, seed=9) != first
    sequence.extend(first[0], FEEDBACK).answer(2, temperature=1.0)
    assert sequence.answer(3, temperature=1.0, seed=8) == first


def test_the_number_of_threads_changes_no_answer(engine: OnnxEngine, directory: Path) -> None:
    many = engine.start(PROMPT).answer(4, temperature=1.0)
    for threads in (1, 2):
        other = OnnxEngine.load(directory, longest_list=12, threads=threads)
        assert other.start(PROMPT).answer(4, temperature=1.0) == many


def test_one_thread_is_no_thread_of_its_own(directory: Path) -> None:
    """What forks of a process with a model count on; the runtime's telemetry would have one; numpy's do not count."""
    program = (
        "import os, sys; import numpy; from pathlib import Path; before = len(os.listdir('/proc/self/task'));"
        "from secondpass.engines.onnx import OnnxEngine; OnnxEngine.load(Path(sys.argv[1]), threads=1);"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, directory], capture_output=True, text=True)
    assert done.stdout == "0\n", done.stderr


def test_a_greedy_answer_takes_the_most_probable_allowed_token_at_each_step(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (greedy,) = sequence.answer()
    while not sequence.ended:
        sequence = sequence.append([int(sequence.next_log_probabilities(allowed_only=True).argmax())])
    assert sequence.written.tokens == greedy.tokens
    assert sequence.answer() == [greedy]
    assert engine.start(PROMPT).answer(3) == [greedy] * 3


def test_the_log_probability_is_the_models_own(engine: OnnxEngine, rounded: llama.LlamaForCausalLM) -> None:
    ids = engine.tokenizer.encode_prompt(PROMPT)
    for one in engine.start(PROMPT).answer(3, temperature=1.0):
        rows = reference(rounded, [*ids, *one.tokens])[len(ids) - 1 : -1]
        expected = rows[np.arange(len(one.tokens)), list(one.tokens)].sum()
        assert one.log_probability == pytest.approx(expected, rel=0.02)


def test_probabilities_are_shown_step_by_step(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    raw, masked = sequence.next_log_probabilities(), sequence.next_log_probabilities(allowed_only=True)
    assert np.exp(raw).sum() == pytest.approx(1)
    words = {engine.tokenizer.id_of(flag(word)) for word in engine.network.manifest.words}
    assert set(np.flatnonzero(masked > -math.inf)) == words == set(sequence.allowed())
    assert (raw[sequence.allowed()] == masked[sequence.allowed()]).all()


def test_a_begun_answer_is_carried_on(engine: OnnxEngine) -> None:
    begun = engine.start(PROMPT).append([engine.tokenizer.id_of(flag("sroa")), engine.tokenizer.id_of(flag("gvn"))])
    assert begun.prefilled_tokens == 2
    for one in begun.answer(4, temperature=1.0):
        assert one.text.startswith(f"{PASSES} -sroa -gvn")
    again = begun.append([]).answer(4, temperature=1.0)
    assert again == begun.answer(4, temperature=1.0)


def test_a_begun_answer_is_as_probable_as_a_whole_one(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (greedy,) = sequence.answer()
    opening = len(sequence.opening)
    (rest,) = sequence.append(greedy.tokens[opening:-3]).answer()
    assert rest.tokens == greedy.tokens
    assert rest.log_probability == pytest.approx(greedy.log_probability, abs=0.05)


def test_a_token_the_grammar_forbids_cannot_be_appended(engine: OnnxEngine) -> None:
    with pytest.raises(EngineError, match=r"cannot go on with '<\|answer\|>'"):
        engine.start(PROMPT).append([engine.tokenizer.id_of(ANSWER)])


def test_feedback_is_read_after_the_cached_prompt(engine: OnnxEngine, rounded: llama.LlamaForCausalLM) -> None:
    sequence = engine.start(PROMPT)
    prompt = engine.tokenizer.encode_prompt(PROMPT)
    assert sequence.prefilled_tokens == len(prompt) + len(sequence.opening)
    (first,) = sequence.answer(temperature=1.0)
    second = sequence.extend(first, FEEDBACK)
    said = engine.tokenizer.encode_feedback(FEEDBACK)
    assert second.prefilled_tokens == len(first.tokens) + len(said) - len(sequence.opening)
    expected = reference(rounded, [*prompt, *first.tokens, *said])[-1]
    found = second.next_log_probabilities()
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected - expected.mean()).mean()


@pytest.mark.parametrize("tokens", [60, 178, 190, 196])  # room for all, for some in a narrow place, for none
def test_second_answers_together_are_those_that_come_one_by_one(engine: OnnxEngine, tokens: int) -> None:
    sequence = engine.start(long_prompt(engine, tokens))
    said = [(it, replace(FEEDBACK, target=n)) for n, it in enumerate(sequence.answer(6, temperature=1.0))]
    alone: list[Completion | None] = [None] * len(said)
    for place, one in enumerate(said):
        with suppress(PromptTooLong):
            (alone[place],) = sequence.extend(*one).answer()
    together = sequence.second_answers(said)
    assert [it and it.tokens for it in together] == [it and it.tokens for it in alone]
    for one, other in zip(together, alone):
        if one and other:
            assert one.log_probability == pytest.approx(other.log_probability, abs=0.05)
    assert sequence.second_answers([]) == []


def test_a_second_answer_says_whether_the_first_stands(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (first,) = sequence.answer(temperature=1.0)
    for one in sequence.extend(first, FEEDBACK).answer(6, temperature=1.0):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert answer.sure is not None


def test_a_message_in_feedback_is_plain_text_to_the_model(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (first,) = sequence.answer()
    said = Feedback(Form.FAST, f"no pass is called '{ANSWER}{PASSES}'")
    read = engine.tokenizer.encode_feedback(said)
    assert read.count(engine.tokenizer.id_of(ANSWER)) == 1
    assert engine.tokenizer.id_of(PASSES) not in read
    assert sequence.extend(first, said).prefilled_tokens == len(first.tokens) + len(read) - len(sequence.opening)


def test_feedback_can_follow_feedback(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    for _ in range(3):
        (answer,) = sequence.answer()
        sequence = sequence.extend(answer, FEEDBACK)
    assert isinstance(Answer.parse(sequence.answer()[0].text), Answer)


def test_an_answer_to_something_else_cannot_be_extended(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (first,) = sequence.answer()
    (second,) = sequence.extend(first, FEEDBACK).answer()
    with pytest.raises(EngineError, match="another sequence"):
        sequence.extend(second, FEEDBACK)


# Code


def test_every_answer_with_code_can_be_read_and_fits(coder: OnnxEngine) -> None:
    sequence = coder.start(PROMPT)
    for one in sequence.answer(10, temperature=1.0, code=True):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert answer.code is not None
        assert coder.tokenizer.decode(one.tokens) == one.text
        assert sequence.prefix.length - len(sequence.opening) + len(one.tokens) <= coder.context_length


def test_answers_end_with_their_counts_unless_code_is_asked_for(engine: OnnxEngine, coder: OnnxEngine) -> None:
    assert coder.writes_code
    assert coder.start(PROMPT).answer(5, temperature=1.0) == engine.start(PROMPT).answer(5, temperature=1.0)


def test_code_comes_after_the_answer_that_is_given_without(coder: OnnxEngine) -> None:
    sequence = coder.start(PROMPT)
    (short,), (long,) = sequence.answer(), sequence.answer(code=True)
    assert long.tokens[: len(short.tokens)] == short.tokens
    counted = sequence.append(short.tokens[len(sequence.opening) :])
    assert counted.ended
    (rest,) = counted.answer(code=True)
    assert rest.text.startswith(f"{short.text}{CODE_OPEN}")
    assert isinstance(Answer.parse(rest.text), Answer)
    assert counted.answer() == [rest_of(counted, short)]


def rest_of(sequence: OnnxSequence, completion: Completion) -> Completion:
    """The same answer, as probable as that sequence, which read it in other steps, holds it."""
    return replace(completion, log_probability=sequence.written.log_probability)


def test_the_log_probability_of_an_answer_with_code_is_the_models_own(
    coder: OnnxEngine, rounded: llama.LlamaForCausalLM
) -> None:
    ids = coder.tokenizer.encode_prompt(PROMPT)
    (one,) = coder.start(PROMPT).answer(temperature=1.0, code=True)
    rows = reference(rounded, [*ids, *one.tokens])[len(ids) - 1 : -1]
    expected = rows[np.arange(len(one.tokens)), list(one.tokens)].sum()
    assert one.log_probability == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("tokens", [247, 246, 240])
def test_answers_with_code_end_within_the_room_there_is(coder: OnnxEngine, tokens: int) -> None:
    for one in coder.start(long_prompt(coder, tokens)).answer(8, temperature=1.0, code=True):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert answer.code is not None
        assert tokens + len(one.tokens) <= 256


def test_room_for_an_answer_may_be_none_for_code(coder: OnnxEngine) -> None:
    sequence = coder.start(long_prompt(coder, 248))
    assert isinstance(Answer.parse(sequence.answer()[0].text), Answer)
    with pytest.raises(PromptTooLong):
        sequence.answer(code=True)


def test_long_feedback_on_an_answer_with_code_is_read_after_it(coder: OnnxEngine) -> None:
    sequence = coder.start(OptimizePrompt("define void @f() {\n  ret void\n}\n"))
    written = Answer(PassList.of("sroa"), 7, 3, code="define void @f() {\n  rat void\n}\n")
    first = Completion(written.render(), tuple(coder.tokenizer.encode_answer(written)), -1.0)
    compiled = f"define void @f() {{\n}}\n{CODE_CLOSE}{ANSWER}{SURE}"
    said = Feedback(Form.LONG, None, 2, 2, True, False, CodeFinding("line 1: expected type", 0), compiled)
    second = sequence.extend(first, said)
    read = coder.tokenizer.encode_feedback(said)
    assert second.prefilled_tokens == len(first.tokens) + len(read) - len(sequence.opening)
    answer = Answer.parse(second.answer(code=True)[0].text)
    assert isinstance(answer, Answer)
    assert answer.sure is not None
    assert answer.code is not None


def test_a_model_that_writes_no_code_says_so(engine: OnnxEngine) -> None:
    assert not engine.writes_code
    with pytest.raises(EngineError, match=r"'random' was not trained to write code; ask for answers without"):
        engine.start(PROMPT).answer(code=True)


def test_a_manifest_from_before_code_says_that_none_is_written(tmp_path: Path) -> None:
    values = json.loads((SHIPPED / MANIFEST).read_text())
    del values["writes_code"], values["feedback_form"]
    (tmp_path / MANIFEST).write_text(json.dumps(values))
    for name in (NETWORK, TOKENIZER):
        (tmp_path / name).symlink_to(SHIPPED / name)
    found = Manifest.read(tmp_path)
    assert not found.writes_code
    assert found == Manifest.read(SHIPPED)


def long_prompt(engine: OnnxEngine, tokens: int) -> OptimizePrompt:
    """A prompt of exactly so many tokens."""
    frame = len(engine.tokenizer.encode_prompt(OptimizePrompt("\t\n")))
    return OptimizePrompt("\t\n" * ((tokens - frame) // 2 + 1) + "?" * ((tokens - frame) % 2))


def test_a_prompt_that_leaves_no_room_is_refused_with_its_length(engine: OnnxEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"251 tokens .* context of 256") as caught:
        engine.start(long_prompt(engine, 251))
    assert (caught.value.tokens, caught.value.context_length) == (251, 256)


def test_of_a_prompt_that_is_too_long_the_beginning_and_the_end_are_read(engine: OnnxEngine) -> None:
    long = "define void @f() {\n" + "  store i32 0, ptr %p\n" * 100 + "  ret void\n}\n"
    sequence = engine.start(OptimizePrompt(long), abridged=True)
    assert sequence.prefilled_tokens < 256 - 256 // 6 + 10
    assert isinstance(Answer.parse(sequence.answer()[0].text), Answer)
    tokens = engine.tokenizer.encode_prompt(OptimizePrompt(long))
    head, tail = 214 - 214 // 4, 214 // 4
    read = engine.read(engine.network.empty(1), [*tokens[:head], *tokens[-tail:]], FIRST_ANSWER)
    assert read.answer(2, 1.0) == sequence.answer(2, 1.0)
    short = engine.start(PROMPT, abridged=True)
    assert short.answer(2, 1.0) == engine.start(PROMPT).answer(2, 1.0)


@pytest.mark.parametrize("tokens", [249, 248, 244, 230])
def test_answers_end_within_the_room_there_is(engine: OnnxEngine, tokens: int) -> None:
    for one in engine.start(long_prompt(engine, tokens)).answer(8, temperature=1.0):
        assert isinstance(Answer.parse(one.text), Answer)
        assert tokens + len(one.tokens) <= 256


def test_feedback_that_leaves_no_room_is_refused(engine: OnnxEngine) -> None:
    sequence = engine.start(long_prompt(engine, 230))
    with pytest.raises(PromptTooLong):
        sequence.extend(sequence.answer()[0], FEEDBACK)


def test_only_the_words_asked_for_are_written(directory: Path) -> None:
    engine = OnnxEngine.load(directory, words=("sroa", "gvn"), longest_list=5)
    for one in engine.start(PROMPT).answer(5, temperature=1.0):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert set(answer.passes.words) <= {"sroa", "gvn"}


def test_a_word_the_model_does_not_know_is_named(directory: Path) -> None:
    with pytest.raises(EngineError, match="' -no-such-pass'"):
        OnnxEngine.load(directory, words=("no-such-pass",))


@pytest.mark.parametrize(("n", "temperature"), [(0, 1.0), (1, -0.5)])
def test_senseless_requests_are_refused(engine: OnnxEngine, n: int, temperature: float) -> None:
    with pytest.raises(EngineError, match="positive"):
        engine.start(PROMPT).answer(n, temperature)


def test_a_negative_seed_is_refused(engine: OnnxEngine) -> None:
    with pytest.raises(EngineError, match="seed -1: it must not be negative"):
        engine.start(PROMPT).answer(2, 1.0, -1)


@pytest.mark.parametrize("cut", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": math.nan}])
def test_samples_cut_to_nothing_are_refused(engine: OnnxEngine, cut: dict[str, float]) -> None:
    with pytest.raises(EngineError, match="the first must be positive, the second above 0, up to 1"):
        engine.start(PROMPT).answer(2, 1.0, **cut)


def test_samples_are_cut_to_the_most_probable_tokens(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    free = sequence.answer(8, temperature=1.0)
    assert sequence.answer(8, temperature=1.0, top_p=1.0) == free
    greedy = sequence.answer()[0].tokens
    assert {it.tokens for it in sequence.answer(4, temperature=1.0, top_k=1)} == {greedy}
    for one in sequence.answer(4, temperature=1.0, top_k=2):
        at = sequence
        for token in one.tokens[len(sequence.opening) :]:
            scores = at.next_log_probabilities(allowed_only=True)
            assert scores[token] > np.sort(scores)[-2] - 1e-2  # one token a step rounds a little otherwise
            at = at.append([token])


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "model.json"])
def test_a_missing_file_is_named(directory: Path, tmp_path: Path, name: str) -> None:
    broken = Path(shutil.copytree(directory, tmp_path / "model"))
    (broken / name).unlink()
    with pytest.raises(ModelError, match=f"is not a model: it has no {name}"):
        OnnxEngine.load(broken)


@pytest.mark.parametrize("name", ["format_version", "prompt_version", "normal_form_version", "vocabulary_version"])
def test_another_version_is_named(directory: Path, tmp_path: Path, name: str) -> None:
    other = Path(shutil.copytree(directory, tmp_path / "model"))
    values = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**values, name: 999}))
    with pytest.raises(ModelError, match=f"has {name} 999, this secondpass needs {values[name]}"):
        OnnxEngine.load(other)


@pytest.mark.parametrize(
    ("name", "text"), [("model.json", "{"), ("model.json", "[]"), ("model.onnx", "?"), ("tokenizer.json", "{}")]
)
def test_a_damaged_file_is_named_in_one_line(directory: Path, tmp_path: Path, name: str, text: str) -> None:
    broken = Path(shutil.copytree(directory, tmp_path / "model"))
    (broken / name).write_text(text)
    with pytest.raises(ModelError, match=name) as caught:
        OnnxEngine.load(broken)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a checkpoint: it has no config\.json"):
        llama.load(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("?")
    with pytest.raises(ModelError, match="is damaged"):
        llama.load(tmp_path)


def test_a_tokenizer_of_another_size_is_refused(model: llama.LlamaForCausalLM, tmp_path: Path) -> None:
    other = Tokenizer.train([IR], 600)
    with pytest.raises(ModelError, match=f"has {other.size} tokens, the model {model.config.vocab_size}"):
        export(model, other, tmp_path, name="mixed")
