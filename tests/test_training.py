"""Training data, the architecture and the training loop."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from secondpass.errors import ModelError
from secondpass.llvm.passes import PassList
from secondpass.model.data import (
    Examples,
    Labelled,
    Trial,
    batches,
    first_answer,
    judge,
    read_labelled,
    second_answer,
)
from secondpass.model.presets import Recipe, Shape
from secondpass.model.presets import shape as named_shape
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import ANSWER, END, FEEDBACK, SURE, TRY_AGAIN, Answer, FastFeedback, OptimizePrompt

O2, SROA, GVN = (PassList.of(*words) for words in (["default<O2>"], ["sroa", "simplifycfg"], ["mem2reg", "gvn"]))


def function(number: int, size: int = 3) -> Labelled:
    """A function whose best list can be told from its text."""
    even = number % 2 == 0
    body = "".join(f"  store i32 {number}, ptr %{line}\n" for line in range(size))
    ir = f"define void @{'even' if even else 'odd'}{number}() {{\n{body}  ret void\n}}\n"
    others = (Trial(GVN if even else SROA, size + 4), Trial(O2, size + 1))
    return Labelled(ir, size + 5, Trial(SROA if even else GVN, size), others)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([function(number).ir for number in range(40)], 600)


def examples(tokenizer: Tokenizer, count: int, context: int = 256) -> Examples:
    found = Examples(tokenizer, context)
    found.add(function(number) for number in range(count))
    return found


def test_functions_and_labels_are_joined_by_hash(tmp_path: Path) -> None:
    rows = [("a", "train"), ("b", "valid"), ("c", "train")]
    functions, labels = tmp_path / "functions.jsonl", tmp_path / "labels.jsonl.gz"
    functions.write_text("".join(json.dumps({"hash": h, "split": s, "ir": f"ir {h}\n"}) + "\n" for h, s in rows))
    label = {"hash": "a", "source": 9, "oz": 5, "best": {"passes": ["sroa", "gvn"], "count": 4}, "others": []}
    with gzip.open(labels, "wt") as out:
        out.write(json.dumps(label) + "\n")
    assert read_labelled(functions, labels, "train") == [
        Labelled("ir a\n", 9, Trial(PassList.of("sroa", "gvn"), 4), ())
    ]
    with pytest.raises(ModelError, match="'valid'"):
        read_labelled(functions, labels, "valid")
    with pytest.raises(ModelError, match="cannot be read"):
        read_labelled(tmp_path / "absent.jsonl", labels, "train")


def test_an_optimize_example_is_the_prompt_and_the_best_list(tokenizer: Tokenizer) -> None:
    example = examples(tokenizer, 1).optimize(0)
    prompt, answer = example.tokens[: example.prompt_end], example.tokens[example.answer_start :]
    assert tokenizer.decode(prompt) == OptimizePrompt(function(0).ir).render()
    assert tokenizer.decode(answer) == Answer(SROA, 8, 3).render() + END


def test_a_feedback_example_learns_only_the_second_answer(tokenizer: Tokenizer) -> None:
    example = examples(tokenizer, 1).feedback(0, random.Random(1))
    assert example is not None
    middle = tokenizer.decode(example.tokens[example.prompt_end : example.answer_start])
    first, feedback = middle.split(FEEDBACK)
    assert isinstance(Answer.parse(first), Answer)
    assert isinstance(FastFeedback.parse(FEEDBACK + feedback), FastFeedback)
    second = tokenizer.decode(example.tokens[example.answer_start :])
    assert second.startswith((SURE, TRY_AGAIN)) and second.endswith(END)


@pytest.mark.parametrize("seed", range(200))
def test_feedback_is_true_and_sureness_is_earned(seed: int) -> None:
    labelled = function(seed)
    first, trial = first_answer(labelled, random.Random(seed))
    feedback = judge(first, labelled.source, trial.count)
    second = second_answer(labelled, trial, feedback)
    assert (feedback.source, feedback.target) == (labelled.source, trial.count)
    assert feedback.source_right == (first.source == labelled.source)
    assert feedback.target_right == (first.target == trial.count)
    assert second.sure == (first.target == trial.count and trial.count <= labelled.best.count)
    assert (second.source, second.target) == (labelled.source, labelled.best.count)
    assert second.passes == (first.passes if second.sure else labelled.best.passes)


def test_first_answers_are_right_and_wrong_in_every_way() -> None:
    labelled, verdicts = function(0), set()
    for seed in range(200):
        first, trial = first_answer(labelled, random.Random(seed))
        feedback = judge(first, labelled.source, trial.count)
        verdicts.add((feedback.source_right, feedback.target_right, second_answer(labelled, trial, feedback).sure))
    assert verdicts == {
        (s, t, sure) for s in (True, False) for t, sure in ((True, True), (True, False), (False, False))
    }


def test_functions_too_long_for_the_context_are_left_out(tokenizer: Tokenizer) -> None:
    found = Examples(tokenizer, 128)
    found.add([function(0), function(1, size=100), function(2)])
    assert (len(found), found.left_out) == (2, 1)
    assert all(len(example.tokens) <= 128 for epoch in range(20) for example in found.epoch(epoch, 0, 1.0))


def test_an_epoch_is_a_function_of_its_number_and_the_seed(tokenizer: Tokenizer) -> None:
    found = examples(tokenizer, 20)
    assert found.epoch(1, 7, 0.5) == found.epoch(1, 7, 0.5)
    assert found.epoch(1, 7, 0.5) != found.epoch(2, 7, 0.5)
    assert found.epoch(1, 7, 0.5) != found.epoch(1, 8, 0.5)


def test_functions_on_which_nothing_beats_oz_can_be_left_out_of_an_epoch(tokenizer: Tokenizer) -> None:
    found = Examples(tokenizer, 256)
    found.add(replace(function(number), beats_oz=number < 5) for number in range(40))
    assert len(found.epoch(0, 0, 0.0, tie_share=0.0)) == 5
    assert 5 < len(found.epoch(0, 0, 0.0, tie_share=0.5)) < 40
    assert len(found.epoch(0, 0, 0.0)) == 40


def test_batches_hold_every_example_once_and_learn_the_right_tokens(tokenizer: Tokenizer) -> None:
    made = examples(tokenizer, 30).epoch(0, 0, 0.3)
    packed = batches(made, 500, 1.0, "seed")
    rows = {tuple(row[: len(row) - padding(row)]) for batch in packed for row in batch.tokens}
    assert rows == {example.tokens for example in made}
    assert all(batch.tokens.size <= 500 for batch in packed)
    learnt = [tokenizer.decode(batch.tokens.flatten()[batch.answers + 1]) for batch in packed]
    assert sum(text.count(END) for text in learnt) == len(made)
    assert not any(ANSWER in text or FEEDBACK in text for text in learnt)
    prompts = sum(len(batch.prompts) for batch in packed)
    assert prompts == sum(example.prompt_end - 1 for example in made)


def padding(row) -> int:
    return len(row) - max(index + 1 for index, token in enumerate(row) if token)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"width": 0}, "width"), ({"heads": 3}, "heads"), ({"heads": 4, "key_value_heads": 3}, "key_value_heads")],
)
def test_a_shape_that_does_not_fit_together_is_refused(settings: dict[str, int], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        Shape(vocabulary=100, **settings)


def test_a_recipe_out_of_range_and_an_unknown_shape_are_refused() -> None:
    with pytest.raises(ModelError, match="feedback_share"):
        Recipe(feedback_share=1.5)
    with pytest.raises(ModelError, match="tiny, small"):
        named_shape("huge", 100)


class TestWithTorch:
    """What needs the extra `train`."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch", reason="needs secondpass[train]")
        self.torch.set_num_threads(1)

    def trainer(self, tokenizer: Tokenizer, directory: Path, count: int = 24, seed: int = 0, **budget):
        from secondpass.model.train import Budget, Trainer

        recipe = Recipe(batch_tokens=600, warmup_steps=5, peak_rate=5e-3, seed=seed)
        sets = examples(tokenizer, count), examples(tokenizer, 4)
        return Trainer(directory, named_shape("tiny", tokenizer.size), recipe, Budget(**budget), *sets, bf16=False)

    def test_the_shape_counts_the_parameters(self) -> None:
        from secondpass.model.architecture import Llama

        sizes = named_shape("tiny", 300)
        assert sum(parameter.numel() for parameter in Llama(sizes).parameters()) == sizes.parameters

    def test_reading_in_pieces_with_a_cache_gives_the_same_states(self) -> None:
        from secondpass.model.architecture import Llama

        model = Llama(named_shape("tiny", 300)).eval()
        tokens = self.torch.randint(300, (2, 12))
        whole, _ = model(tokens)
        cache, parts = (), []
        for piece in tokens.split([5, 1, 6], dim=1):
            part, cache = model(piece, cache)
            parts.append(part)
        assert self.torch.allclose(self.torch.cat(parts, dim=1), whole, atol=1e-5)
        assert cache[0][0].shape == (2, 1, 12, 32)

    def test_training_learns_and_logs(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        from secondpass.model.train import LOG

        trainer = self.trainer(tokenizer, tmp_path, steps=60)
        before = trainer.validate()["optimize_loss"]
        trainer.run(log_steps=10)
        records = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
        assert [record["step"] for record in records] == [10, 20, 30, 40, 50, 60, 60]
        assert records[-1]["kind"] == "valid"
        assert records[-1]["values"]["optimize_loss"] < before / 5

    def test_a_resumed_training_ends_at_the_same_weights(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        whole = self.trainer(tokenizer, tmp_path / "whole", steps=12)
        whole.run()
        cut = self.trainer(tokenizer, tmp_path / "cut", steps=12)
        assert not cut.resume()
        steps = cut._batches()
        for _ in range(7):
            cut._step(next(steps))
        cut.save()
        resumed = self.trainer(tokenizer, tmp_path / "cut", steps=12)
        assert resumed.resume() and resumed.position.step == 7
        resumed.run()
        assert resumed.position.step == 12
        for name, weight in whole.model.state_dict().items():
            assert self.torch.equal(weight, resumed.model.state_dict()[name]), name

    def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(self, tokenizer: Tokenizer, tmp_path) -> None:
        from secondpass.model.train import BEST, LOG

        self.trainer(tokenizer, tmp_path, steps=8).run(validate_minutes=0)
        records = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
        measured = [record["values"]["optimize_loss"] for record in records if record["kind"] == "valid"]
        saved = self.torch.load(tmp_path / BEST, weights_only=True)
        assert len(measured) == 9 and saved["position"]["best"] == min(measured)

    def test_a_checkpoint_of_another_recipe_is_refused(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        self.trainer(tokenizer, tmp_path, steps=1).run()
        with pytest.raises(ModelError, match="another shape or recipe"):
            self.trainer(tokenizer, tmp_path, seed=1, steps=1).resume()

    def test_a_training_can_start_from_the_weights_of_one_with_another_recipe(self, tokenizer, tmp_path) -> None:
        from secondpass.model.train import CHECKPOINT

        first = self.trainer(tokenizer, tmp_path / "first", steps=2)
        first.run()
        second = self.trainer(tokenizer, tmp_path / "second", seed=1, steps=2)
        second.start_from(tmp_path / "first" / CHECKPOINT)
        assert second.position.step == 0
        for name, weight in first.model.state_dict().items():
            assert self.torch.equal(weight, second.model.state_dict()[name]), name
        with pytest.raises(ModelError, match="cannot be read"):
            second.start_from(tmp_path / "absent.pt")

    def test_a_training_of_another_shape_cannot_be_started_from(self, tokenizer, tmp_path) -> None:
        from secondpass.model.train import CHECKPOINT

        first = self.trainer(tokenizer, tmp_path, steps=1)
        first.run()
        saved = self.torch.load(tmp_path / CHECKPOINT, weights_only=True)
        saved["shape"]["context"] += 1
        self.torch.save(saved, tmp_path / CHECKPOINT)
        with pytest.raises(ModelError, match="another shape"):
            first.start_from(tmp_path / CHECKPOINT)

    def test_a_budget_of_minutes_ends_the_training(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        trainer = self.trainer(tokenizer, tmp_path, minutes=0.01)
        trainer.run()
        assert trainer.position.seconds >= 0.6 and trainer.spent == 1

    def test_the_rate_warms_up_and_falls_to_its_share(self) -> None:
        from secondpass.model.train import learning_rate

        recipe = Recipe(peak_rate=1.0, final_share=0.1, warmup_steps=10)
        assert learning_rate(recipe, 0, 0.0) == pytest.approx(0.1)
        assert learning_rate(recipe, 10, 0.0) == pytest.approx(1.0)
        assert learning_rate(recipe, 99, 1.0) == pytest.approx(0.1)

    def test_budgets_and_sets_that_make_no_sense_are_refused(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="budget"):
            self.trainer(tokenizer, tmp_path)
        with pytest.raises(ModelError, match="budget"):
            self.trainer(tokenizer, tmp_path, steps=1, minutes=1)
        with pytest.raises(ModelError, match="none of the functions"):
            self.trainer(tokenizer, tmp_path, count=0, steps=1)
