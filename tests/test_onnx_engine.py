"""The engine in the box, on a small model with random weights that went through the real export."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export needs torch (extra: train)")
pytest.importorskip("onnx", reason="the export needs onnx (extra: train)")

from secondpass.engines.onnx import OnnxEngine  # noqa: E402
from secondpass.errors import EngineError, ModelError, PromptTooLong  # noqa: E402
from secondpass.model.architecture import Llama  # noqa: E402
from secondpass.model.export import export, quantise  # noqa: E402
from secondpass.model.presets import Shape  # noqa: E402
from secondpass.model.tokenizer import Tokenizer  # noqa: E402
from secondpass.model.train import load_checkpoint  # noqa: E402
from secondpass.prompt import ANSWER, PASSES, Answer, FastFeedback, OptimizePrompt, flag  # noqa: E402

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
FEEDBACK = FastFeedback(None, 6, 4, source_right=False, target_right=False).render()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([IR.replace("total", f"total{number}") for number in range(50)], 700)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llama:
    torch.manual_seed(1)
    shape = Shape(
        vocabulary=tokenizer.size, context=256, width=64, layers=3, heads=4, key_value_heads=2, feed_forward=176
    )
    model = Llama(shape).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:  # trained weights are larger than initial ones
            parameter.data *= 4
    return model


@pytest.fixture(scope="module")
def directory(model: Llama, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    export(model, tokenizer, out, name="random")
    return out


@pytest.fixture(scope="module")
def engine(directory: Path) -> OnnxEngine:
    return OnnxEngine.load(directory, longest_list=12)


def reference(model: Llama, tokens: list[int]) -> np.ndarray:
    """Log probabilities after each token, by torch in float32."""
    with torch.no_grad():
        hidden, _ = model(torch.tensor([tokens]))
        return torch.log_softmax(model.logits(hidden[0]), dim=-1).double().numpy()


@pytest.fixture(scope="module")
def rounded(model: Llama) -> Llama:
    """The same model with the weights the export rounds them to."""
    copy = Llama(model.shape).eval()
    copy.load_state_dict(model.state_dict())
    for parameter in copy.parameters():
        if parameter.dim() == 2:
            integers, scales = quantise(parameter.detach().numpy())
            parameter.data = torch.from_numpy(integers * scales[:, None])
    return copy


def test_the_network_computes_what_torch_computes(engine: OnnxEngine, rounded: Llama) -> None:
    ids = engine.tokenizer.encode_prompt(PROMPT)
    empty = engine.network.empty(1)
    logits, _ = engine.network.step(np.array([ids]), empty, empty)
    expected = reference(rounded, ids)
    shifted = logits[0] - logits[0].max(axis=-1, keepdims=True)
    found = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    assert np.abs(found - expected).mean() < 0.02 * np.abs(expected - expected.mean()).mean()
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 0.9


def test_quantised_weights_keep_to_seven_bits() -> None:
    weight = np.random.default_rng(0).standard_normal((5, 40)).astype(np.float32)
    weight[3] = 0
    integers, scales = quantise(weight)
    assert np.abs(integers).max() == 63
    assert np.allclose(integers * scales[:, None], weight, atol=np.abs(weight).max() / 63 / 2 + 1e-6)
    assert (integers[3] == 0).all()


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


def test_a_greedy_answer_takes_the_most_probable_allowed_token_at_each_step(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (greedy,) = sequence.answer()
    while not sequence.ended:
        sequence = sequence.append([int(sequence.next_log_probabilities(allowed_only=True).argmax())])
    assert sequence.written.tokens == greedy.tokens
    assert sequence.answer() == [greedy]
    assert engine.start(PROMPT).answer(3) == [greedy] * 3


def test_the_log_probability_is_the_models_own(engine: OnnxEngine, rounded: Llama) -> None:
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


def test_feedback_is_read_after_the_cached_prompt(engine: OnnxEngine, rounded: Llama) -> None:
    sequence = engine.start(PROMPT)
    prompt = engine.tokenizer.encode_prompt(PROMPT)
    assert sequence.prefilled_tokens == len(prompt) + len(sequence.opening)
    (first,) = sequence.answer(temperature=1.0)
    second = sequence.extend(first, FEEDBACK)
    said = engine.tokenizer.encode(FEEDBACK)
    assert second.prefilled_tokens == len(first.tokens) + len(said) - len(sequence.opening)
    expected = reference(rounded, [*prompt, *first.tokens, *said])[-1]
    found = second.next_log_probabilities()
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected - expected.mean()).mean()


def test_a_second_answer_says_whether_the_first_stands(engine: OnnxEngine) -> None:
    sequence = engine.start(PROMPT)
    (first,) = sequence.answer(temperature=1.0)
    for one in sequence.extend(first, FEEDBACK).answer(6, temperature=1.0):
        answer = Answer.parse(one.text)
        assert isinstance(answer, Answer)
        assert answer.sure is not None


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


def long_prompt(engine: OnnxEngine, tokens: int) -> OptimizePrompt:
    """A prompt of exactly so many tokens."""
    frame = len(engine.tokenizer.encode_prompt(OptimizePrompt("\t\n")))
    return OptimizePrompt("\t\n" * ((tokens - frame) // 2 + 1) + "?" * ((tokens - frame) % 2))


def test_a_prompt_that_leaves_no_room_is_refused_with_its_length(engine: OnnxEngine) -> None:
    with pytest.raises(PromptTooLong, match=r"251 tokens .* context of 256") as caught:
        engine.start(long_prompt(engine, 251))
    assert (caught.value.tokens, caught.value.context_length) == (251, 256)


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
    path = tmp_path / "checkpoint.pt"
    path.write_text("?")
    with pytest.raises(ModelError, match="is not a checkpoint"):
        load_checkpoint(path)


def test_a_tokenizer_of_another_size_is_refused(model: Llama, tmp_path: Path) -> None:
    other = Tokenizer.train([IR], 600)
    with pytest.raises(ModelError, match=f"the tokenizer has {other.size} tokens, the model {model.shape.vocabulary}"):
        export(model, other, tmp_path, name="mixed")
