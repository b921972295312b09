"""Which examples meet in a forward pass, what is learnt of them, and that they do not disturb each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import learning
import numpy as np
import pytest

from secondpass.errors import ModelError
from secondpass.model.batches import Batch, Plan
from secondpass.model.dataset import Example
from secondpass.model.presets import Recipe

RECIPE = Recipe(step_tokens=2048, device_tokens=1024, prompt_share=1.0, tie_share=1.0, answers=3)
PACKED = replace(RECIPE, packing=True)
both = pytest.mark.parametrize("recipe", [RECIPE, PACKED], ids=["padded", "packed"])


def examples(count: int) -> list[Example]:
    """Examples of random tokens, each beginning with a token of its own."""
    rng = np.random.default_rng(5)
    return [
        replace(
            drawn(rng, int(rng.integers(20, 90)), [int(rng.integers(5, 20)) for _ in range(1 + number % 3)]),
            context=np.r_[number + 1, rng.integers(200, 300, 19 + 7 * (number % 9))].astype(np.int32),
            prompt_end=15,
        )
        for number in range(count)
    ]


def drawn(rng: np.random.Generator, context: int, answers: list[int]) -> Example:
    shares = rng.random(len(answers)) + 0.1
    return Example(
        "f",
        rng.integers(200, 300, context).astype(np.int32),
        context,
        tuple(rng.integers(200, 300, length).astype(np.int32) for length in answers),
        tuple(map(float, shares / shares.sum())),
        1,
    )


def number_of(batch: Batch, place: int) -> int:
    """Which example a learnt position is of: its first token says."""
    row, column = divmod(place, batch.tokens.shape[1])
    start = int(np.flatnonzero(batch.examples[row] == batch.examples[row, column])[0])
    return int(batch.tokens[row, start]) - 1


def epoch(plan: Plan, recipe: Recipe) -> list[Batch]:
    """The passes of the first epoch."""
    found, step = [], 0
    while True:
        for number in range(recipe.passes):
            if sum(len(np.unique(it.examples[it.examples > 0])) and rows_of(it) for it in found) >= len(
                plan.sizes.gains
            ):
                return found
            found.append(plan.batch(step, number))
        step += 1


def rows_of(batch: Batch) -> int:
    """Examples in a batch."""
    return int(batch.examples.max(axis=1).sum())


@both
def test_an_epoch_holds_every_example_once_within_the_tokens_of_a_pass(recipe: Recipe) -> None:
    made = examples(50)
    batches = epoch(Plan(made, recipe, 256), recipe)
    assert all(batch.tokens.size <= recipe.device_tokens for batch in batches)
    seen = Counter(
        int(batch.tokens[row, np.flatnonzero(batch.examples[row] == it)[0]]) - 1
        for batch in batches
        for row in range(len(batch.tokens))
        for it in range(1, batch.examples[row].max() + 1)
    )
    assert seen == Counter(range(50))
    assert sum(batch.used for batch in batches) == sum(it.length for it in made)


@both
def test_all_tokens_of_answers_are_learnt_and_prompts_but_nothing_between_them(recipe: Recipe) -> None:
    made = examples(50)
    answers, prompts = [], []
    for batch in epoch(Plan(made, recipe, 256), recipe):
        for index, (place, target) in enumerate(zip(batch.learnt.tolist(), batch.targets.tolist())):
            (answers if index < batch.answer_tokens else prompts).append((number_of(batch, place), target))
    assert Counter(answers) == Counter((n, int(t)) for n, it in enumerate(made) for a in it.answers for t in a)
    assert Counter(prompts) == Counter((n, int(t)) for n, it in enumerate(made) for t in it.context[1:15])


def test_packed_rows_hold_little_padding() -> None:
    plan = Plan(examples(400), replace(PACKED, step_tokens=2048), 512)
    batches = [plan.batch(step, number) for step in range(4) for number in range(2)]
    assert sum(it.used for it in batches) / sum(it.tokens.size for it in batches) > 0.93


@both
def test_the_weights_of_a_step_are_those_of_two_means(recipe: Recipe) -> None:
    plan = Plan(examples(50), recipe, 256)
    for step in range(5):  # over the end of an epoch
        batches = [plan.batch(step, number) for number in range(recipe.passes)]
        answers = sum(float(it.weights[: it.answer_tokens].sum()) for it in batches) / len(batches)
        prompts = sum(float(it.weights[it.answer_tokens :].sum()) for it in batches) / len(batches)
        assert answers == pytest.approx(1, abs=1e-5)
        assert prompts == pytest.approx(recipe.prompt_weight, abs=1e-5)


def test_a_token_of_an_answer_weighs_what_its_share_says() -> None:
    one = drawn(np.random.default_rng(0), 30, [10, 10])
    (batch,) = Plan([one], RECIPE, 256).validation(1)
    first, second = batch.weights[:10], batch.weights[10:20]
    assert first.sum() / second.sum() == pytest.approx(one.shares[0] / one.shares[1], rel=1e-5)
    assert np.ptp(first) == 0


@both
def test_any_step_can_be_asked_for_at_any_time(recipe: Recipe) -> None:
    made = examples(50)
    walked, asked = Plan(made, recipe, 256), Plan(made, recipe, 256)
    for step in range(12):
        batches = [walked.batch(step, number) for number in range(recipe.passes)]
    again = [asked.batch(11, number) for number in reversed(range(recipe.passes))][::-1]
    assert all(same(one, other) for one, other in zip(batches, again))
    assert all(same(one, other) for one, other in zip(batches, [walked.batch(11, it) for it in range(recipe.passes)]))
    other = Plan(made, replace(recipe, seed=1), 256).batch(11, 0)
    assert not same(batches[0], other)
    assert asked.epochs(12) == walked.epochs(12) > 2


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(getattr(one, it.name), getattr(other, it.name)) for it in fields(Batch))


def test_answers_are_drawn_by_their_shares() -> None:
    shares = (0.7, 0.2, 0.1)  # the first is often drawn twice
    answers = tuple(np.full(4, 100 + number, dtype=np.int32) for number in range(3))
    one = Example("f", np.arange(10, dtype=np.int32), 10, answers, shares, 1)
    other = replace(one, answers=(np.full(4, 99, dtype=np.int32),), shares=(1.0,))
    plan, total = Plan([one, other], replace(RECIPE, answers=2, step_tokens=64, device_tokens=64), 64), np.zeros(4)
    for step in range(2000):
        batch = plan.batch(step, 0)
        assert len(np.unique(batch.targets[: batch.answer_tokens])) <= 3
        for target, weight in zip(batch.targets[: batch.answer_tokens], batch.weights):
            total[target - 99] += weight
    assert total / 2000 == pytest.approx((0.5, *(share / 2 for share in shares)), abs=0.01)


def test_ties_take_part_by_their_share() -> None:
    made = [replace(it, gain=int(number < 10)) for number, it in enumerate(examples(60))]
    for share, low, high in ((0.0, 10, 10), (0.5, 20, 50), (1.0, 60, 60)):
        plan = Plan(made, replace(RECIPE, tie_share=share), 256)
        counted = sum(rows_of(plan.batch(step, number)) for step in range(20) for number in range(2))
        assert low <= counted / plan.epochs(20) <= high + 1
    with pytest.raises(ModelError, match="tie_share"):
        Plan([replace(it, gain=0) for it in made], replace(RECIPE, tie_share=0.0), 256).batch(0, 0)


def test_a_mask_is_needed_behind_the_first_answer_of_a_rows_first_example() -> None:
    one, two = (drawn(np.random.default_rng(0), 30, lengths) for lengths in ([10], [10, 5]))
    for recipe, made, causal in ((RECIPE, [one, one], 40), (RECIPE, [two, two], 40), (PACKED, [one, one], 40)):
        (batch,) = Plan(made, recipe, 256).validation(2)
        assert batch.causal == causal
        assert (batch.causal == batch.tokens.shape[1]) == (recipe is RECIPE and made[0] is one)


def test_an_example_that_fits_no_pass_is_refused() -> None:
    with pytest.raises(ModelError, match=r"an example has \d+ tokens with 3 answers.*device_tokens 64"):
        Plan(examples(9), replace(RECIPE, step_tokens=64, device_tokens=64), 64)


class TestAlone:
    """An example's losses do not depend on what it meets."""

    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch", reason="needs secondpass[train]")
        pytest.importorskip("transformers", reason="needs secondpass[train]")
        self.torch.set_num_threads(1)

    @pytest.fixture
    def model(self):
        from secondpass.model import llama
        from secondpass.model.presets import Shape

        shape = Shape(vocabulary=300, context=256, width=32, layers=2, heads=2, key_value_heads=1, feed_forward=48)
        model = llama.initial(shape, end=None, seed=1).eval()
        for parameter in model.parameters():
            parameter.data *= 4 if parameter.dim() == 2 else 1  # so that attention has something to say
        return model

    def losses(self, model, batch: Batch):
        """The loss of each target."""
        from secondpass.model.trainer import inputs_of

        inputs = inputs_of(batch)
        del inputs["answer_tokens"], inputs["used"]
        with self.torch.no_grad():
            return model(**inputs)["losses"]

    def by_example(self, model, batch: Batch) -> dict[int, list[tuple[int, float]]]:
        """Of each example, the targets and their losses: its answers', then its prompt's."""
        found: dict[int, list[tuple[int, float]]] = {}
        for place, target, loss in zip(batch.learnt, batch.targets.tolist(), self.losses(model, batch).tolist()):
            found.setdefault(number_of(batch, int(place)), []).append((target, loss))
        return found

    def together(self, model, made: list[Example], recipe: Recipe) -> dict[int, list[tuple[int, float]]]:
        batches = Plan(made, recipe, 512).validation(len(made))
        assert any(rows_of(it) > 3 for it in batches)
        return {key: value for batch in batches for key, value in self.by_example(model, batch).items()}

    @both
    @pytest.mark.parametrize("answers", [1, 3])
    def test_an_example_among_others_has_the_losses_it_has_alone(self, model, recipe: Recipe, answers: int) -> None:
        made = [replace(it, answers=it.answers[:answers], shares=it.shares[:answers]) for it in examples(20)]
        found = self.together(model, made, recipe)
        for number, one in enumerate(made):
            (batch,) = Plan([one], recipe, 512).validation(1)
            alone = self.by_example(model, batch)[number]
            assert [target for target, _ in alone] == [target for target, _ in found[number]]
            assert [loss for _, loss in alone] == pytest.approx([loss for _, loss in found[number]], abs=2e-4)

    def test_an_answer_beside_others_has_the_losses_it_has_alone(self, model) -> None:
        made = [it for it in examples(12) if len(it.answers) > 1]
        for one in made:
            (batch,) = Plan([one], RECIPE, 512).validation(1)
            beside = self.losses(model, batch).tolist()
            at = 0
            for answer in one.answers:
                (single,) = Plan([replace(one, answers=(answer,), shares=(1.0,))], RECIPE, 512).validation(1)
                alone = self.losses(model, single).tolist()
                assert beside[at : at + len(answer)] == pytest.approx(alone[: len(answer)], abs=2e-4)
                at += len(answer)

    @pytest.mark.parametrize(("name", "blind"), [("examples", np.ones_like), ("answers", np.zeros_like)])
    def test_without_its_number_a_token_would_see_too_much(self, model, name: str, blind) -> None:
        """The tests above can fail: what they compare differs where everything before a token is seen."""
        batch = Plan(examples(20), PACKED, 512).validation(20)[0]
        changed = replace(batch, **{name: blind(getattr(batch, name))})
        assert float((self.losses(model, batch) - self.losses(model, changed)).abs().max()) > 0.05

    def test_the_loss_is_what_transformers_says_of_the_same_text(self, model) -> None:
        one = learning.example(learning.tokenizer(), 0)
        one = replace(one, context=one.context % 300, answers=tuple(it % 300 for it in one.answers[:1]), shares=(1.0,))
        (batch,) = Plan([one], RECIPE, 512).validation(1)
        text = self.torch.from_numpy(np.concatenate((one.context, one.answers[0])).astype(np.int64))[None]
        with self.torch.no_grad():
            logits = model(input_ids=text).logits[0]
        expected = self.torch.nn.functional.cross_entropy(logits[:-1], text[0, 1:], reduction="none").tolist()
        count = len(one.answers[0])
        assert self.losses(model, batch)[:count].tolist() == pytest.approx(expected[-count:], abs=1e-4)


# Lists whose counts alone are learnt


def counting(count: int) -> list[Example]:
    """Examples with none to four counted lists, whose last two tokens are learnt."""
    rng = np.random.default_rng(7)
    every = examples(count)
    lengths = [[int(rng.integers(4, 9)) for _ in range(number % 5)] for number in range(count)]
    lists = [tuple(rng.integers(300, 400, it).astype(np.int32) for it in of_one) for of_one in lengths]
    return [replace(it, counted=of_it, given=tuple(len(each) - 2 for each in of_it)) for it, of_it in zip(every, lists)]


@both
def test_of_counted_lists_only_what_is_not_given_is_learnt(recipe: Recipe) -> None:
    made = counting(50)
    found = Counter(
        (number_of(batch, place), target)
        for batch in epoch(Plan(made, replace(recipe, counted=4), 512), recipe)
        for place, target in zip(
            batch.learnt[batch.answer_tokens :][: batch.count_tokens].tolist(),
            batch.targets[batch.answer_tokens :][: batch.count_tokens].tolist(),
        )
    )
    assert found == Counter((n, int(t)) for n, it in enumerate(made) for each in it.counted for t in each[-2:])


@both
def test_what_is_foretold_of_a_counted_list_stands_before_it(recipe: Recipe) -> None:
    for batch in epoch(Plan(counting(50), replace(recipe, counted=4), 512), recipe):
        tokens = batch.tokens.ravel()
        inner = batch.learnt[batch.answer_tokens :][: batch.count_tokens]
        assert (tokens[inner + 1] == batch.targets[batch.answer_tokens :][: batch.count_tokens]).all()
        assert (batch.answers.ravel()[inner] == batch.answers.ravel()[inner + 1]).all()


@both
def test_counted_lists_are_drawn_anew_each_epoch_and_no_list_twice(recipe: Recipe) -> None:
    none = {"counted": (np.array([1, 2, 3], np.int32),), "given": (1,)}
    made = [it if it.counted else replace(it, **none) for it in counting(30)]
    plan, seen = Plan(made, replace(recipe, counted=1), 512), set[int]()
    for step in range(40):
        for number in range(recipe.passes):
            batch = plan.batch(step, number)
            assert batch.count_tokens == 2 * rows_of(batch)
            seen |= set(batch.targets[batch.answer_tokens :][: batch.count_tokens].tolist())
    assert len(seen) > 40


@both
def test_counts_weigh_what_the_recipe_says(recipe: Recipe) -> None:
    recipe = replace(recipe, counted=2, count_weight=0.3)
    plan = Plan(counting(50), recipe, 512)
    for step in range(5):
        batches = [plan.batch(step, number) for number in range(recipe.passes)]
        sums = [
            np.sum([it.weights[: it.answer_tokens].sum() for it in batches]),
            np.sum([it.weights[it.answer_tokens :][: it.count_tokens].sum() for it in batches]),
            np.sum([it.weights[it.answer_tokens + it.count_tokens :].sum() for it in batches]),
        ]
        assert np.array(sums) / len(batches) == pytest.approx([1, 0.3, recipe.prompt_weight], abs=1e-5)


def test_answers_weigh_a_power_of_what_their_function_gains() -> None:
    one = drawn(np.random.default_rng(0), 30, [10])
    made = [one, replace(one, gain=16), replace(one, gain=0)]
    (batch,) = Plan(made, replace(RECIPE, gain_power=0.5), 256).validation(3)
    weights = batch.weights[: batch.answer_tokens]
    assert len(weights) == 2 * len(one.answers[0])
    assert sorted({round(float(it / weights.min()), 3) for it in weights}) == [1.0, 4.0]
