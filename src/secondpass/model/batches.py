"""Which examples meet in which forward pass, and the arrays they become.

    plan = Plan(examples, settings)          # for a whole training
    batch = plan.batch(step, number)         # arrays of one forward pass

A row is a context, answer 1, answer 2, ...: what is read before the answers is read once for all of them. An answer
sees its context and itself, and its positions go on from the context's end, as if it stood there alone. Behind the
answers, and laid out like them, stand lists that need not be good, of which only the counts are learnt. Several
examples may share a row, and do not see each other. Two numbers a token say who sees whom (`Batch.examples` and
`Batch.answers`).

Everything that is drawn is a function of the seed and the epoch, so any step of a training can be asked for at
any time. A step's forward passes are fixed, however many devices they are dealt to. The module knows token ids
and numpy; it knows nothing of torch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secondpass.errors import ModelError
from secondpass.model.dataset import Example
from secondpass.model.presets import Recipe

Numbers = NDArray[np.int64]
Rows = list[list[int]]
"""The examples in each row, by their index."""

_BLUR = 0.03
"""A length is changed by this share at most before sorting, so that the same examples do not always meet."""
_WINDOW = 1024
"""Examples that are packed into rows together: many fill rows well, few keep the order random."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One forward pass: rows of tokens, and what is learnt from them.

    Attributes:
        tokens: ids, (rows, length); padded with zeros.
        positions: of each token in its sequence, (rows, length).
        examples: the example in its row a token belongs to, from 1, (rows, length); 0 for padding.
        answers: the answer a token belongs to, from 1, (rows, length); 0 for the context. A token sees what stands
            before it in its row, is of the same example, and is of its context or of the same answer.
        causal: up to here a token of any row sees all that stands before it; the length where rows are of one example
            with one answer each, for padding stands behind what is learnt.
        learnt: positions in the flattened rows after which something is learnt, (learnt,); those of answers first,
            then those of counts, then those of prompts.
        targets: the token that should follow, (learnt,).
        weights: of each target's loss, (learnt,). The mean over a step's forward passes of a batch's weighted sum
            is the loss: the weighted mean over the step's answer tokens, `count_weight` times the mean over its tokens
            of counts, and `prompt_weight` times the mean over its chosen prompt tokens.
        answer_tokens, count_tokens: how many of the learnt are of answers, and of counts alone.
        used: tokens that are not padding.
    """

    tokens: Numbers
    positions: Numbers
    examples: Numbers
    answers: Numbers
    causal: int
    learnt: Numbers
    targets: Numbers
    weights: NDArray[np.float32]
    answer_tokens: int
    count_tokens: int
    used: int


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """Lengths of all examples, as arrays to plan with.

    Attributes:
        contexts: tokens of each context, (examples,).
        prompts: tokens of each prompt that can be learnt, (examples,): all but the first.
        gains: `Example.gain`, (examples,).
        first: number of each example's first answer, and of one after all, (examples + 1,).
        answers: tokens of each answer, (answers,).
        shares: share of each answer, (answers,).
        of_counted: the example that each counted list is of, ascending, (counted,).
        counted: tokens of each counted list, (counted,).
        given: how many of them are not learnt, (counted,).
    """

    contexts: Numbers
    prompts: Numbers
    gains: Numbers
    first: Numbers
    answers: Numbers
    shares: NDArray[np.float64]
    of_counted: Numbers
    counted: Numbers
    given: Numbers

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Sizes:
        """Measure examples."""
        rows = [(len(it.context), it.prompt_end - 1, it.gain, len(it.answers)) for it in examples]
        contexts, prompts, gains, counts = np.array(rows, dtype=np.int64).T
        answers = np.array([len(answer) for it in examples for answer in it.answers], dtype=np.int64)
        shares = np.array([share for it in examples for share in it.shares], dtype=np.float64)
        of_counted = np.repeat(np.arange(len(rows)), [len(it.counted) for it in examples])
        counted = np.array([len(each) for it in examples for each in it.counted], dtype=np.int64)
        given = np.array([each for it in examples for each in it.given], dtype=np.int64)
        first = np.concatenate(([0], counts.cumsum()))
        return cls(contexts, prompts, gains, first, answers, shares, of_counted, counted, given)


@dataclass(frozen=True, slots=True, eq=False)
class _Epoch:
    """The forward passes of one epoch.

    Attributes:
        passes: the rows of each.
        drawn: the answers of each example, by their numbers, (examples, answers); one drawn twice stands twice.
        weights: of each of them, (examples, answers); 0 for the second time.
        counted: which counted lists were drawn, by their numbers, ascending, (drawn,).
        prompt_tokens: prompt tokens that are learnt of each example, (examples,).
        totals: the weights of all answer tokens of each pass, its tokens of counts, and its learnt prompt tokens,
            (passes, 3).
        seed: of the prompt tokens that are drawn.
    """

    passes: list[Rows]
    drawn: Numbers
    weights: NDArray[np.float64]
    counted: Numbers
    prompt_tokens: Numbers
    totals: NDArray[np.float64]
    seed: tuple[int, ...]


class Plan:
    """The forward passes of a training, or of a validation, in their order.

    Attributes:
        sizes: of the examples.
        longest: tokens of the longest context with one answer.
    """

    def __init__(self, examples: Sequence[Example], recipe: Recipe, context: int) -> None:
        """Measure the examples; epochs are planned as they are needed.

        Args:
            examples: what there is to learn.
            recipe: how it is dealt.
            context: tokens of a packed row at most, where no example has more.

        Raises:
            ModelError: an example does not fit a forward pass.
        """
        self._examples, self._recipe = examples, recipe
        self.sizes = sizes = Sizes.of(examples)
        self.longest = int((sizes.contexts + _most(sizes, 1)).max())
        longest = int((sizes.contexts + _most(sizes, recipe.answers) + _most_counted(sizes, recipe.counted)).max())
        if longest > recipe.device_tokens:
            raise ModelError(
                f"an example has {longest} tokens with {recipe.answers} answers and {recipe.counted} counted lists, "
                f"more than one forward pass (Recipe.device_tokens {recipe.device_tokens}); raise device_tokens or "
                "train fewer answers"
            )
        self._row = min(max(context, longest), recipe.device_tokens)
        self._ends: list[int] = []
        """Forward passes up to the end of each epoch that was planned."""
        self._epochs: dict[int, _Epoch] = {}
        self._last_totals: tuple[int, NDArray[np.float64]] = (-1, np.zeros(3))

    def batch(self, step: int, number: int) -> Batch:
        """A forward pass of a training.

        Args:
            step: optimiser step, from 0.
            number: of the pass in its step.
        """
        count = self._recipe.passes
        epoch, at = self._locate(step * count + number)
        return self._collate(epoch, at, self._totals(step) / count)

    def epochs(self, step: int) -> float:
        """Epochs that are done when this many steps are."""
        number = step * self._recipe.passes
        epoch, at = self._locate(number)
        return bisect_right(self._ends, number) + at / len(epoch.passes)

    def validation(self, most: int) -> list[Batch]:
        """Forward passes over some examples, the same ones each time; their weighted sums sum up to the loss.

        Of examples of gain 0 they hold the share that a training takes: the loss is of what is being learnt.

        Args:
            most: examples at most, evenly spread.
        """
        rng = np.random.default_rng(0)
        every = self._taken(rng)
        taken = every[np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).astype(np.int64))]
        epoch = self._plan(rng, taken, (0, 0))
        totals = epoch.totals.sum(axis=0)
        return [self._collate(epoch, at, totals) for at in range(len(epoch.passes))]

    def _locate(self, number: int) -> tuple[_Epoch, int]:
        """The epoch of a forward pass of the training, and its number there."""
        while not self._ends or self._ends[-1] <= number:
            self._ends.append(len(self._planned(len(self._ends)).passes) + (self._ends[-1] if self._ends else 0))
        epoch = bisect_right(self._ends, number)
        return self._planned(epoch), number - (self._ends[epoch - 1] if epoch else 0)

    def _planned(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            seed = self._recipe.seed, epoch
            rng = np.random.default_rng(seed)
            taken = self._taken(rng)
            # A step may reach from one epoch into the next; older ones are not asked for again.
            self._epochs = {key: it for key, it in self._epochs.items() if abs(key - epoch) <= 1}
            self._epochs[epoch] = self._plan(rng, taken, seed)
        return self._epochs[epoch]

    def _taken(self, rng: np.random.Generator) -> Numbers:
        """The examples of an epoch: those of gain, and so many of the others as the recipe says."""
        ties = rng.random(len(self._examples)) < self._recipe.tie_share
        taken = np.flatnonzero((self.sizes.gains > 0) | ties)
        if not len(taken):
            raise ModelError(
                f"no example beats -Oz, and Recipe.tie_share {self._recipe.tie_share} takes none of the others"
            )
        return taken

    def _totals(self, step: int) -> NDArray[np.float64]:
        """Sums over a step: the weights of its answers' tokens, its tokens of counts, and its learnt prompt tokens."""
        if self._last_totals[0] != step:
            count = self._recipe.passes
            places = [self._locate(step * count + it) for it in range(count)]
            self._last_totals = step, np.sum([epoch.totals[at] for epoch, at in places], axis=0)
        return self._last_totals[1]

    def _plan(self, rng: np.random.Generator, taken: Numbers, seed: tuple[int, ...]) -> _Epoch:
        recipe, sizes = self._recipe, self.sizes
        drawn, weights = _draw_answers(sizes, recipe.answers, rng)
        weights *= sizes.gains[:, None] ** recipe.gain_power
        counted = _draw_counted(sizes, recipe.counted, rng)
        lengths = sizes.contexts + (sizes.answers[drawn] * (weights > 0)).sum(axis=1)
        lengths += _sums(sizes.of_counted, counted, sizes.counted, len(lengths))
        rows = _packed_rows if recipe.packing else _single_rows
        grouped = list(_passes(rows(taken, lengths, self._row, rng), lengths, recipe.device_tokens))
        order: list[int] = rng.permutation(len(grouped)).tolist()
        passes = [grouped[it] for it in order]
        prompt_tokens = np.rint(sizes.prompts * recipe.prompt_share * (recipe.prompt_weight > 0)).astype(np.int64)
        weight_sums = (sizes.answers[drawn] * weights).sum(axis=1)
        count_tokens = _sums(sizes.of_counted, counted, sizes.counted - sizes.given, len(lengths))
        count_tokens *= recipe.count_weight > 0
        members = [np.array([it for row in rows for it in row]) for rows in passes]
        parts = weight_sums, count_tokens, prompt_tokens
        totals = np.array([[part[it].sum() for part in parts] for it in members])
        return _Epoch(passes, drawn, weights, counted, prompt_tokens, totals, seed)

    def _collate(self, epoch: _Epoch, number: int, totals: NDArray[np.float64]) -> Batch:
        weights = np.array([1.0, self._recipe.count_weight, self._recipe.prompt_weight])
        scales = weights / np.where(totals > 0, totals, np.inf)
        return _collate([[self._piece(epoch, index, scales) for index in row] for row in epoch.passes[number]])

    def _piece(self, epoch: _Epoch, index: int, scales: NDArray[np.float64]) -> _Piece:
        example: Example = self._examples[index]
        rng = np.random.default_rng((*epoch.seed, index))
        # The prompt's first token is never foretold, so its last one is the last that is learnt.
        chosen = np.sort(rng.permutation(example.prompt_end - 1)[: epoch.prompt_tokens[index]])
        weights = epoch.weights[index]
        answers = epoch.drawn[index][weights > 0] - self.sizes.first[index]
        # Numbers of lists ascend with the examples: those of this one stand together in both arrays.
        first, end = np.searchsorted(self.sizes.of_counted, (index, index + 1))
        counted = epoch.counted[slice(*np.searchsorted(epoch.counted, (first, end)))] - first
        return _piece(example, answers.tolist(), weights[weights > 0] * scales[0], counted.tolist(), chosen, scales[1:])


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    """What is learnt of an example: `Batch.learnt` within its own tokens, targets and weights."""

    at: Numbers
    targets: Numbers
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """An example as it stands in a row; the arrays of `Batch` for its tokens alone, (tokens,) each."""

    tokens: Numbers
    positions: Numbers
    answers: Numbers
    of_answers: _Learnt
    of_counts: _Learnt
    of_prompt: _Learnt


def _piece(
    example: Example,
    answers: Sequence[int],
    weights: NDArray[np.float64],
    counted: Sequence[int],
    chosen: Numbers,
    scales: NDArray[np.float64],
) -> _Piece:
    """Lay an example out.

    Args:
        example: what there is of it.
        answers: which of its answers are learnt, by their place.
        weights: of a token of each of them.
        counted: which of its counted lists, by their place.
        chosen: positions after which a prompt token is learnt.
        scales: weights of a token of a count, and of such a prompt token.
    """
    context, length = example.context, len(example.context)
    ids = [*(example.answers[it] for it in answers), *(example.counted[it] for it in counted)]
    given = [0] * len(answers) + [example.given[it] for it in counted]
    every = np.array([*weights, *[scales[0]] * len(counted)])
    lengths = [len(it) for it in ids]
    ends: list[int] = (length + np.cumsum(lengths)).tolist()
    # The first token of every answer is foretold where the context ends, the others after the one before them.
    at: list[Numbers] = [
        np.arange(end - count + skipped - 1, end - 1) if skipped else np.r_[length - 1, end - count : end - 1]
        for end, count, skipped in zip(ends, lengths, given)
    ]

    def learnt(which: slice) -> _Learnt:
        places, targets = at[which], [it[skipped:] for it, skipped in zip(ids[which], given[which])]
        taken = [len(it) for it in targets]
        return _Learnt(_joined(places), _joined(targets), np.repeat(every[which], taken))

    split = len(answers)
    return _Piece(
        np.concatenate((context, *ids), dtype=np.int64),
        np.concatenate((np.arange(length), *(length + np.arange(it) for it in lengths))),
        np.repeat(np.arange(len(ids) + 1), (length, *lengths)),
        learnt(slice(split)),
        learnt(slice(split, None)),
        _Learnt(chosen, context[chosen + 1].astype(np.int64), np.full(len(chosen), scales[1])),
    )


def _joined(parts: Sequence[NDArray[Any]]) -> Numbers:
    return np.concatenate((np.zeros(0, dtype=np.int64), *parts), dtype=np.int64)


def _causal(row: Sequence[_Piece], length: int) -> int:
    """`Batch.causal` for one row: up to its second example or second answer."""
    first = row[0].answers
    if len(row) == 1 and first[-1] <= 1:
        return length
    return int(np.searchsorted(first, 1, side="right"))


def _collate(rows: Sequence[Sequence[_Piece]]) -> Batch:
    length = max(sum(len(it.tokens) for it in row) for row in rows)
    tokens, positions, examples, answers = np.zeros((4, len(rows), length), dtype=np.int64)
    starts: list[int] = []
    for number, row in enumerate(rows):
        at = 0
        for example, piece in enumerate(row, 1):
            place = number, slice(at, at + len(piece.tokens))
            tokens[place], positions[place], answers[place] = piece.tokens, piece.positions, piece.answers
            examples[place] = example
            starts.append(number * length + at)
            at += len(piece.tokens)
    pieces = [piece for row in rows for piece in row]
    parts = [getattr(it, name) for name in ("of_answers", "of_counts", "of_prompt") for it in pieces]
    return Batch(
        tokens,
        positions,
        examples,
        answers,
        causal=min(_causal(row, length) for row in rows),
        learnt=np.concatenate([start + it.at for start, it in zip(starts * 3, parts)]),
        targets=np.concatenate([it.targets for it in parts]),
        weights=np.concatenate([it.weights for it in parts]).astype(np.float32),
        answer_tokens=sum(len(it.of_answers.at) for it in pieces),
        count_tokens=sum(len(it.of_counts.at) for it in pieces),
        used=int((examples > 0).sum()),
    )


def _most(sizes: Sizes, answers: int) -> Numbers:
    """Tokens of each example's longest answers, so many of them."""
    of_answers = np.repeat(np.arange(len(sizes.contexts)), np.diff(sizes.first))
    return _sums(of_answers, _first_of_each(of_answers, -sizes.answers, answers), sizes.answers, len(sizes.contexts))


def _most_counted(sizes: Sizes, lists: int) -> Numbers:
    """Tokens of each example's longest counted lists, so many of them."""
    longest = _first_of_each(sizes.of_counted, -sizes.counted, lists)
    return _sums(sizes.of_counted, longest, sizes.counted, len(sizes.contexts))


def _draw_counted(sizes: Sizes, lists: int, rng: np.random.Generator) -> Numbers:
    """So many of every example's counted lists, by their numbers, ascending."""
    return _first_of_each(sizes.of_counted, rng.random(len(sizes.counted)), lists)


def _first_of_each(owners: Numbers, order: NDArray[Any], most: int) -> Numbers:
    """Of things that belong to examples, in their order: the first of each example by another order, ascending."""
    ranked = np.lexsort((order, owners))
    first = np.searchsorted(owners, owners)
    return np.sort(ranked[np.arange(len(ranked)) - first < most])


def _sums(owners: Numbers, chosen: Numbers, values: Numbers, examples: int) -> Numbers:
    """What the chosen ones of each example sum up to, (examples,)."""
    return np.bincount(owners[chosen], values[chosen].astype(np.float64), examples).astype(np.int64)


def _draw_answers(sizes: Sizes, answers: int, rng: np.random.Generator) -> tuple[Numbers, NDArray[np.float64]]:
    """The answers of every example and their weights, (examples, answers) each.

    Where there are no more answers than wanted, all of them count by their shares. Else they are drawn at even
    distances along the shares, so that the expected weight of each is its share.
    """
    first, end = sizes.first[:-1, None], sizes.first[1:, None]
    places = np.arange(answers)
    offsets = rng.random((len(first), 1))
    bounds = np.concatenate(([0.0], sizes.shares.cumsum()))
    low, high = bounds[first], bounds[end]
    marks = low + (places + offsets) / answers * (high - low)
    drawn = np.clip(np.searchsorted(bounds, marks, side="right") - 1, first, end - 1)
    every = np.minimum(first + places, end - 1)
    few = end - first <= answers
    chosen = np.where(few, every, drawn)
    again = np.zeros(chosen.shape, dtype=bool)
    again[:, 1:] = chosen[:, 1:] == chosen[:, :-1]
    repeats = (chosen[:, :, None] == chosen[:, None, :]).sum(axis=2)
    weights = np.where(few, sizes.shares[chosen] / (high - low), repeats / answers)
    return chosen, np.where(again, 0.0, weights)


def _single_rows(taken: Numbers, lengths: Numbers, _most: int, rng: np.random.Generator) -> Rows:
    """A row an example, like lengths beside each other."""
    blurred = lengths[taken] * rng.uniform(1 - _BLUR, 1 + _BLUR, len(taken))
    return [[it] for it in taken[np.argsort(blurred, kind="stable")].tolist()]


def _packed_rows(taken: Numbers, lengths: Numbers, most: int, rng: np.random.Generator) -> Rows:
    """Rows of several examples: the longest first, each into the fullest row that has room for it."""
    rows: Rows = []
    shuffled = rng.permutation(taken)
    for start in range(0, len(shuffled), _WINDOW):
        window = shuffled[start : start + _WINDOW]
        room: list[tuple[int, int]] = []
        """Of the window's rows: tokens left and the row's number, ascending."""
        for index in window[np.argsort(-lengths[window], kind="stable")].tolist():
            length = int(lengths[index])
            at = bisect_left(room, (length, 0))
            left, row = room.pop(at) if at < len(room) else (most, len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(index)
            insort(room, (left - length, row))
    return rows


def _passes(rows: Rows, lengths: Numbers, tokens: int) -> Iterator[Rows]:
    """Consecutive rows together, as many as fit with their padding."""
    group: Rows = []
    longest = 0
    for row in rows:
        length = int(lengths[row].sum())
        if group and max(longest, length) * (len(group) + 1) > tokens:
            yield group
            group, longest = [], 0
        group.append(row)
        longest = max(longest, length)
    yield group
