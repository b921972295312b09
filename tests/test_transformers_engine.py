"""The engine over checkpoints: what plain transformers computes, and what the engine in the box answers."""

from __future__ import annotations

import shutil
from copy import deepcopy
from itertools import islice
from pathlib import Path

import learning
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="checkpoints need secondpass[train]")
transformers = pytest.importorskip("transformers", reason="checkpoints need secondpass[train]")

from secondpass.engines import load_engine  # noqa: E402
from secondpass.engines.transformers import TransformersEngine  # noqa: E402
from secondpass.errors import EngineError, ModelError, PromptTooLong  # noqa: E402
from secondpass.model import llama  # noqa: E402
from secondpass.model.manifest import TOKENIZER, Manifest  # noqa: E402
from secondpass.model.presets import Shape  # noqa: E402
from secondpass.model.run import complete  # noqa: E402
from secondpass.model.tokenizer import Tokenizer  # noqa: E402
from secondpass.prompt import Answer, Feedback, Form, OptimizePrompt, flag  # noqa: E402
from secondpass.strategies.tree import in_order  # noqa: E402

PROMPT = OptimizePrompt(learning.ir(3))
FEEDBACK = Feedback(Form.FAST, None, 6, 4, source_right=False, target_right=False)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    torch.set_num_threads(1)
    return learning.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> llama.LlamaForCausalLM:
    shape = Shape(
        vocabulary=tokenizer.size, context=160, width=64, layers=3, heads=4, key_value_heads=2, feed_forward=176
    )
    model = llama.initial(shape, end=None, seed=1).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:  # trained weights are larger than initial ones
            parameter.data *= 4
    return model


@pytest.fixture(scope="module")
def directory(model, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    out = tmp_path_factory.mktemp("checkpoint") / "checkpoint-1"
    model.save_pretrained(out)
    tokenizer.save(out.parent / TOKENIZER)
    facts = Manifest(name="random", context_length=160, layers=3, key_value_heads=2, head_width=16, takes_feedback=True)
    complete(out, facts, out.parent / TOKENIZER)
    return out


@pytest.fixture(scope="module")
def engine(directory: Path) -> TransformersEngine:
    return TransformersEngine.load(directory, longest_list=12, device="cpu")


def expected(directory: Path, tokens: list[int]) -> np.ndarray:
    """Log probabilities after each token, by plain transformers without a cache."""
    plain = transformers.LlamaForCausalLM.from_pretrained(directory).float().eval()
    with torch.no_grad():
        return torch.log_softmax(plain(torch.tensor([tokens])).logits[0].double(), dim=-1).numpy()


def test_a_greedy_answer_is_what_plain_transformers_holds_most_probable(engine, directory: Path) -> None:
    sequence = engine.start(PROMPT)
    (greedy,) = sequence.answer()
    ids = engine.tokenizer.encode_prompt(PROMPT)
    rows = expected(directory, [*ids, *greedy.tokens])[len(ids) - 1 : -1]
    assert greedy.log_probability == pytest.approx(rows[np.arange(len(rows)), list(greedy.tokens)].sum(), abs=1e-3)
    begun = sequence
    for token, row in list(zip(greedy.tokens, rows))[len(sequence.opening) :]:
        assert begun.next_log_probabilities() == pytest.approx(row, abs=1e-4)
        allowed = begun.allowed()
        assert token == allowed[row[allowed].argmax()]
        begun = begun.append([token])
    assert begun.ended


def test_free_decoding_is_that_of_generate(engine, directory: Path) -> None:
    plain = transformers.LlamaForCausalLM.from_pretrained(directory).float().eval()
    ids = engine.tokenizer.encode_prompt(PROMPT)
    generated = plain.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=20, do_sample=False, pad_token_id=0
    )[0, len(ids) :].tolist()
    network = engine.network
    logits, prefix = network.step(np.array([ids]), network.empty(1), network.empty(1), last=1)
    own, written = network.empty(1), [int(logits[0, -1].argmax())]
    while len(written) < 20:
        logits, own = network.step(np.array([[written[-1]]]), prefix, own)
        written.append(int(logits[0, -1].argmax()))
    assert written == generated


def test_it_answers_as_the_exported_model_does_up_to_its_rounding(model, engine, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the export needs secondpass[train]")
    from secondpass.engines.onnx import OnnxEngine
    from secondpass.model.export import export, quantise

    rounded = deepcopy(model)
    for parameter in rounded.parameters():
        if parameter.dim() == 2:
            integers, scales = quantise(parameter.detach().numpy())
            parameter.data = torch.from_numpy(integers * scales[:, None])
    export(rounded, engine.tokenizer, tmp_path, name="random")
    boxed = OnnxEngine.load(tmp_path, longest_list=12, threads=1).start(PROMPT)
    ours = TransformersEngine.over(rounded, engine.network.manifest, engine.tokenizer, longest_list=12).start(PROMPT)
    # Its own greedy answer: whatever it takes, the other holds it nearly as probable as its own first choice.
    for token in boxed.answer()[0].tokens[len(boxed.opening) :]:
        scores = ours.next_log_probabilities(allowed_only=True)
        assert scores[token] > scores.max() - 0.15
        ours, boxed = ours.append([token]), boxed.append([token])
    assert ours.ended and boxed.ended


def test_every_answer_can_be_read_and_the_first_ones_stay(engine) -> None:
    sequence = engine.start(PROMPT)
    many = sequence.answer(6, temperature=1.0, seed=3)
    assert len({it.text for it in many}) > 3
    assert all(isinstance(Answer.parse(it.text), Answer) for it in many)
    assert [it.text for it in sequence.answer(2, temperature=1.0, seed=3)] == [it.text for it in many[:2]]


def test_feedback_is_read_after_the_cached_prompt(engine, directory: Path) -> None:
    sequence = engine.start(PROMPT)
    (first,) = sequence.answer(temperature=1.0)
    second = sequence.extend(first, FEEDBACK)
    said = engine.tokenizer.encode_feedback(FEEDBACK)
    assert second.prefilled_tokens == len(first.tokens) + len(said) - len(sequence.opening)
    rows = expected(directory, [*engine.tokenizer.encode_prompt(PROMPT), *first.tokens, *said])
    assert second.next_log_probabilities() == pytest.approx(rows[-1], abs=1e-4)
    (answer,) = second.answer()
    assert Answer.parse(answer.text).sure is not None


def test_branches_of_different_lengths_are_read_together(engine, directory: Path) -> None:
    network = engine.network
    ids = engine.tokenizer.encode_prompt(PROMPT)
    _, prefix = network.step(np.array([ids]), network.empty(1), network.empty(1), last=1)
    flags = [engine.tokenizer.id_of(flag(word)) for word in ("sroa", "gvn", "licm", "adce")]
    begun = [[], flags[:1], flags[:3]]
    owns = [network.step(np.array([it]), prefix, network.empty(1))[1] if it else network.empty(1) for it in begun]
    logits, owns = network.read_one(np.array([flags[3]] * 3), prefix, owns)
    for row, own, tokens in zip(logits, owns, begun, strict=True):
        after = expected(directory, [*ids, *tokens, flags[3]])[-1]
        assert torch.log_softmax(torch.from_numpy(row).double(), dim=-1).numpy() == pytest.approx(after, abs=1e-4)
        again, _ = network.step(np.array([[flags[0]]]), prefix, own)
        more = expected(directory, [*ids, *tokens, flags[3], flags[0]])[-1]
        assert torch.log_softmax(torch.from_numpy(again[0, -1]).double(), -1).numpy() == pytest.approx(more, abs=1e-4)


def test_a_tree_of_answers_begins_with_the_greedy_one(engine) -> None:
    sequence = engine.start(PROMPT)
    tree = sequence.tree()
    (path,) = tree.finish([tree.root])
    assert path.written.tokens == sequence.answer()[0].tokens


def test_a_model_in_bfloat16_has_trees_too(model, engine) -> None:
    """As a GPU holds it: branches that have read nothing and others meet in one batch."""
    short = TransformersEngine.over(deepcopy(model).bfloat16(), engine.network.manifest, engine.tokenizer)
    sequence = short.start(PROMPT)
    found = [path.written.tokens for path in islice(in_order(sequence.tree(), 8), 8)]
    assert len(set(found)) == 8
    assert found[0] == sequence.answer()[0].tokens


def test_a_directory_is_loaded_by_what_it_holds(directory: Path) -> None:
    assert isinstance(load_engine(directory), TransformersEngine)


def test_a_prompt_that_leaves_no_room_is_refused(engine) -> None:
    with pytest.raises(PromptTooLong, match="context of 160"):
        engine.start(OptimizePrompt("\t\n" * 100))


def test_a_word_the_model_does_not_know_is_named(directory: Path) -> None:
    with pytest.raises(EngineError, match="' -no-such-pass'"):
        TransformersEngine.load(directory, words=("no-such-pass",))


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "config.json", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(directory: Path, tmp_path: Path, name: str) -> None:
    broken = Path(shutil.copytree(directory, tmp_path / "checkpoint"))
    (broken / name).write_text("?")
    with pytest.raises(ModelError, match=r"damaged|is not a tokenizer"):
        TransformersEngine.load(broken)
    (broken / name).unlink()
    with pytest.raises(ModelError, match=f"is not a checkpoint: it has no {name}"):
        TransformersEngine.load(broken)


def test_a_checkpoint_of_another_version_is_named(directory: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(directory, tmp_path / "checkpoint"))
    text = (other / "model.json").read_text()
    (other / "model.json").write_text(text.replace('"prompt_version": ', '"prompt_version": 99'))
    with pytest.raises(ModelError, match=r"has prompt_version 99\d*, this secondpass needs"):
        TransformersEngine.load(other)
