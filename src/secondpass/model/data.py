"""Training examples: labelled functions as prompts and the answers a model should give.

Two tasks, both written with `prompt`'s forms:

    Optimize:  prompt, the best list with its true counts
    Feedback:  prompt, somebody's answer, the compiler's feedback on it, the best list

The answer before a feedback is one of the lists the search tried, with counts that are right or wrong
as a model's would be; the feedback says the truth about them. All that is drawn is a function of the
seed and the epoch, so a training that is cut short can go on exactly where it was. This module
knows token ids and numpy; it knows nothing of torch.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secondpass.errors import ModelError
from secondpass.llvm.passes import PassList
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import END, Answer, FastFeedback, OptimizePrompt

_BEST_SHARE = 0.4
"""How often the answer before a feedback is the best list already."""
_SOURCE_RIGHT, _TARGET_RIGHT = 0.8, 0.5
"""How often its counts are true. Counting the prompt is easier than foreseeing a list's effect."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A pass list and the instruction count the compiler reached with it."""

    passes: PassList
    count: int


@dataclass(frozen=True, slots=True)
class Labelled:
    """A function with what the search found out about it.

    Attributes:
        ir: normalised IR.
        source: its instruction count.
        best: the best list.
        others: other lists that were tried, better or worse than -Oz.
        beats_oz: whether the best list reaches fewer instructions than -Oz.
    """

    ir: str
    source: int
    best: Trial
    others: tuple[Trial, ...]
    beats_oz: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence of token ids.

    Attributes:
        tokens: prompt, answers, end marker.
        prompt_end: the prompt's IR and frame are `tokens[:prompt_end]`.
        answer_start: the answer to be learnt is `tokens[answer_start:]`.
    """

    tokens: tuple[int, ...]
    prompt_end: int
    answer_start: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded to one length, and what is learnt from them.

    Attributes:
        tokens: ids, (rows, length); padded with zeros, which nothing learns or looks at.
        answers: positions in the flattened tokens that an answer's token follows.
        prompts: the same for the chosen tokens of prompts.
        used: tokens that are not padding.
    """

    tokens: NDArray[np.int64]
    answers: NDArray[np.int64]
    prompts: NDArray[np.int64]
    used: int


def read_ir(functions: Path, split: str) -> Iterator[str]:
    """The normalised IR of a split's functions.

    Args:
        functions: JSON lines, with the keys `ir` and `split` among others.
        split: `train`, `valid` or `test`.

    Raises:
        ModelError: the file cannot be read.
    """
    return (row["ir"] for row in _read_rows(functions) if row["split"] == split)


def read_labelled(functions: Path, labels: Path, split: str) -> list[Labelled]:
    """The functions of a split that have a label, in the functions file's order.

    Args:
        functions: as for `read_ir`, with the key `hash` too.
        labels: JSON lines, gzipped, with the keys `hash`, `source`, `best` and `others`.
        split: `train`, `valid` or `test`.

    Raises:
        ModelError: a file cannot be read, or no function of the split has a label.
        PassListError: a label's list is not well formed.
    """
    by_hash = {row["hash"]: row for row in _read_rows(labels)}
    found = [
        _labelled(row["ir"], by_hash[row["hash"]])
        for row in _read_rows(functions)
        if row["split"] == split and row["hash"] in by_hash
    ]
    if not found:
        raise ModelError(f"no function of the split '{split}' in {functions} has a label in {labels}")
    return found


def _read_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            yield from map(json.loads, lines)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON lines: {error}") from error


def _labelled(ir: str, label: dict[str, Any]) -> Labelled:
    others = tuple(map(_trial, label["others"]))
    best = _trial(label["best"])
    return Labelled(ir, label["source"], best, others, best.count < label["oz"])


def _trial(row: dict[str, Any]) -> Trial:
    return Trial(PassList.of(*row["passes"]), row["count"])


@dataclass(slots=True)
class Examples:
    """The examples of a set of functions, as many of them as fit a model's context."""

    tokenizer: Tokenizer
    context: int
    left_out: int = 0
    """Functions that are too long."""
    _functions: list[tuple[Labelled, tuple[int, ...]]] = field(default_factory=list[tuple[Labelled, tuple[int, ...]]])

    def add(self, labelled: Iterable[Labelled]) -> None:
        """Tokenize these functions; those whose Optimize example does not fit are left out."""
        for function in labelled:
            self._functions.append((function, tuple(self.tokenizer.encode_prompt(OptimizePrompt(function.ir)))))
            if len(self.optimize(-1).tokens) > self.context:
                self._functions.pop()
                self.left_out += 1

    def __len__(self) -> int:
        return len(self._functions)

    def optimize(self, index: int) -> Example:
        """Task Optimize for one function."""
        function, prompt = self._functions[index]
        answer = Answer(function.best.passes, function.source, function.best.count)
        return Example((*prompt, *self._ended(answer)), len(prompt), len(prompt))

    def feedback(self, index: int, rng: random.Random) -> Example | None:
        """Task Feedback for one function, after an answer that is drawn; None where it does not fit."""
        function, prompt = self._functions[index]
        first, trial = first_answer(function, rng)
        feedback = judge(first, function.source, trial.count)
        middle = self.tokenizer.encode(first.render() + feedback.render())
        tokens = (*prompt, *middle, *self._ended(second_answer(function, trial, feedback)))
        return Example(tokens, len(prompt), len(prompt) + len(middle)) if len(tokens) <= self.context else None

    def epoch(self, number: int, seed: int, feedback_share: float, tie_share: float = 1.0) -> list[Example]:
        """An example a function; which of the tasks, and what is drawn for it, differs by epoch.

        Args:
            number: of the epoch.
            seed: of all that is drawn.
            feedback_share: of the examples that train the second answer.
            tie_share: of the functions on which nothing beats -Oz, how many take part.
        """
        rng = random.Random(f"examples {seed} {number}")
        part = [index for index, (it, _) in enumerate(self._functions) if it.beats_oz or rng.random() < tie_share]
        return [
            (self.feedback(index, rng) if rng.random() < feedback_share else None) or self.optimize(index)
            for index in part
        ]

    def _ended(self, answer: Answer) -> list[int]:
        return self.tokenizer.encode(answer.render() + END)


def first_answer(function: Labelled, rng: random.Random) -> tuple[Answer, Trial]:
    """An answer a model might have given, and the trial its list comes from."""
    trial = function.best if not function.others or rng.random() < _BEST_SHARE else rng.choice(function.others)
    source = function.source if rng.random() < _SOURCE_RIGHT else _missed(function.source, rng)
    if rng.random() < _TARGET_RIGHT:
        target = trial.count
    else:  # a model misses by a little, or promises what the best list would have reached
        wrong = {_missed(trial.count, rng), function.best.count} - {trial.count}
        target = rng.choice(sorted(wrong))
    return Answer(trial.passes, source, target), trial


def judge(answer: Answer, source: int, target: int) -> FastFeedback:
    """The feedback on a valid answer, from the true counts."""
    return FastFeedback(None, source, target, answer.source == source, answer.target == target)


def second_answer(function: Labelled, trial: Trial, feedback: FastFeedback) -> Answer:
    """What to say after the feedback: the same list again where it was as good as foreseen, else the best."""
    sure = feedback.target_right and trial.count <= function.best.count
    best = trial if sure else function.best
    return Answer(best.passes, function.source, best.count, sure)


def _missed(count: int, rng: random.Random) -> int:
    """A count near the true one, but never it."""
    miss = rng.randint(1, max(2, count // 8))
    return count + miss if miss > count or rng.random() < 0.5 else count - miss


def batches(examples: Sequence[Example], batch_tokens: int, prompt_share: float, seed: str) -> list[Batch]:
    """Pack examples of like length into batches, the batches in random order.

    Args:
        examples: in any order.
        batch_tokens: tokens a batch at most, padding included; one example may have more.
        prompt_share: share of the prompts' tokens that are learnt.
        seed: of the order and of the tokens chosen.
    """
    rng = random.Random(f"batches {seed}")
    # A length is blurred before sorting, so that the same functions do not always meet in a batch.
    order = sorted(examples, key=lambda example: len(example.tokens) * rng.uniform(0.97, 1.03))
    groups: list[list[Example]] = [[]]
    longest = 0
    for example in order:
        longest = max(longest, len(example.tokens))
        if groups[-1] and longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = len(example.tokens)
        groups[-1].append(example)
    rng.shuffle(groups)
    chooser = np.random.default_rng(rng.getrandbits(64))
    return [_batch(group, prompt_share, chooser) for group in groups if group]


def _batch(examples: Sequence[Example], prompt_share: float, rng: np.random.Generator) -> Batch:
    length = max(len(example.tokens) for example in examples)
    tokens = np.zeros((len(examples), length), dtype=np.int64)
    answers: list[NDArray[np.int64]] = []
    prompts: list[NDArray[np.int64]] = []
    for row, example in enumerate(examples):
        tokens[row, : len(example.tokens)] = example.tokens
        start = row * length
        answers.append(start + np.arange(example.answer_start - 1, len(example.tokens) - 1))
        positions = start + np.arange(example.prompt_end - 1)
        prompts.append(positions[rng.random(len(positions)) < prompt_share])
    used = sum(len(example.tokens) for example in examples)
    return Batch(tokens, np.concatenate(answers), np.concatenate(prompts), used)
