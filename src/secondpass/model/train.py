"""Training: a model, a recipe and examples in; a checkpoint and a log out.

    trainer = Trainer(run_directory, shape, recipe, Budget(minutes=60), training, validation)
    trainer.resume()  # does nothing in an empty directory
    trainer.run()

The checkpoint holds everything that is not a function of the seed: weights, AdamW's state, the
position in the data, the time spent. A training that is cut short goes on from its last checkpoint
as if nothing had happened; under a budget of steps, to the same weights. `best.pt` is the checkpoint
of the lowest validation loss so far, for data that is too little for the time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from secondpass.errors import ModelError
from secondpass.model.architecture import Llama
from secondpass.model.data import Batch, Example, Examples, batches
from secondpass.model.presets import Recipe, Shape

CHECKPOINT, BEST, LOG = "checkpoint.pt", "best.pt", "log.jsonl"
_VALIDATED = 128
"""Examples a validation reads at most, of each task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop, and so how fast the learning rate falls: after steps, or after minutes of training.

    With minutes the cosine follows the clock, so it reaches its end exactly when the time is up
    however busy the machine is.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Check that there is one budget; raises ModelError."""
        if (self.steps is None) == (self.minutes is None):
            raise ModelError("a budget is a number of steps or of minutes: give one of them")

    def spent(self, steps: int, seconds: float) -> float:
        """The share of the budget that is used up, 0 to 1."""
        if self.steps is not None:
            return min(1.0, steps / max(1, self.steps))
        return min(1.0, seconds / 60 / max(1e-9, self.minutes or 0))


@dataclass(slots=True)
class Position:
    """How far a training has come.

    Attributes:
        step: optimiser steps done.
        epoch: passes over the functions that are complete.
        batch: batches of this epoch that are done.
        tokens: tokens read, without padding.
        seconds: time spent in training steps.
        best: the lowest validation loss of task Optimize so far.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the log: means over the steps since the last one, or a validation."""

    kind: str
    step: int
    epoch: int
    tokens: int
    seconds: float
    values: dict[str, float]


def learning_rate(recipe: Recipe, step: int, spent: float) -> float:
    """The rate of a step: linear warm-up, then a cosine over the budget."""
    cosine = (1 + math.cos(math.pi * spent)) / 2
    rate = recipe.peak_rate * (recipe.final_share + (1 - recipe.final_share) * cosine)
    return rate * min(1.0, (step + 1) / recipe.warmup_steps)


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean cross entropies in nats a token, and the share of the answers' tokens that rank first."""

    answers: Tensor
    prompts: Tensor
    right: Tensor


def losses(model: Llama, batch: Batch, *, bf16: bool) -> Losses:
    """Run the model over a batch. Logits are computed only where something is learnt."""
    tokens = _tensor(batch.tokens)
    following = torch.roll(tokens.flatten(), -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden, _ = model(tokens)
        hidden = hidden.flatten(0, 1)
        positions = [_tensor(batch.answers), _tensor(batch.prompts)]
        logits = [model.logits(hidden[at]).float() for at in positions]
    targets = [following[at] for at in positions]
    return Losses(
        functional.cross_entropy(logits[0], targets[0]),
        # A batch of the shortest functions may have drawn no prompt token: no loss then, not 0 / 0.
        functional.cross_entropy(logits[1], targets[1], reduction="sum") / max(1, len(targets[1])),
        (logits[0].detach().argmax(-1) == targets[0]).float().mean(),
    )


def _tensor(array: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


class Trainer:
    """One training in one directory."""

    def __init__(
        self,
        directory: Path,
        shape: Shape,
        recipe: Recipe,
        budget: Budget,
        training: Examples,
        validation: Examples,
        *,
        bf16: bool = True,
        report: Callable[[Record, float], None] = lambda record, spent: None,
    ) -> None:
        """Set up a new training.

        Args:
            directory: for the checkpoint and the log; made where it does not exist.
            shape: of the model.
            recipe: how to train it.
            budget: when to stop.
            training: what to learn, at least one function.
            validation: what to measure on; may be empty.
            bf16: matrix products in bfloat16; weights and optimiser stay in float32.
            report: called with every record of the log and the share of the budget used.

        Raises:
            ModelError: there is nothing to learn, or the tokenizer does not fit the shape.
        """
        if not len(training):
            raise ModelError(f"none of the functions fits the model's context of {shape.context} tokens")
        if training.tokenizer.size != shape.vocabulary:
            raise ModelError(f"the tokenizer has {training.tokenizer.size} tokens, the model {shape.vocabulary}")
        directory.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(recipe.seed)  # pyright: ignore[reportUnknownMemberType]
        self.model = Llama(shape)
        self.position = Position()
        self._optimizer = _optimizer(self.model, recipe)
        self._directory, self._recipe, self._budget = directory, recipe, budget
        self._training, self._validation = training, validation
        self._bf16, self._report = bf16, report

    @property
    def spent(self) -> float:
        """The share of the budget that is used up."""
        return self._budget.spent(self.position.step, self.position.seconds)

    def resume(self) -> bool:
        """Go on from the directory's checkpoint; False where there is none.

        Raises:
            ModelError: the checkpoint is of another shape or recipe.
        """
        path = self._directory / CHECKPOINT
        if not path.exists():
            return False
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        if saved["shape"] != asdict(self.model.shape) or saved["recipe"] != asdict(self._recipe):
            raise ModelError(f"{path} was made with another shape or recipe; take its settings or another directory")
        self.model.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.position = Position(**saved["position"])
        return True

    def start_from(self, checkpoint: Path) -> None:
        """Begin with the weights of another training of the same shape, whatever its recipe and data.

        Raises:
            ModelError: the checkpoint cannot be read, or is of another shape.
        """
        other = load_checkpoint(checkpoint)
        if other.shape != self.model.shape:
            raise ModelError(f"{checkpoint} is of another shape; take that one's settings")
        self.model.load_state_dict(other.state_dict())

    def save(self, name: str = CHECKPOINT) -> None:
        """Write a checkpoint; a crash while writing leaves the old one."""
        path = self._directory / name
        state = {
            "shape": asdict(self.model.shape),
            "recipe": asdict(self._recipe),
            "position": asdict(self.position),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def run(self, *, log_steps: int = 20, save_minutes: float = 3, validate_minutes: float = 5) -> None:
        """Train until the budget is used up; validate and save at the end as well."""
        saved = validated = time.monotonic()
        sums: list[dict[str, float]] = []
        for batch in self._batches():
            sums.append(self._step(batch))
            if len(sums) == log_steps:
                self._write("train", {name: sum(row[name] for row in sums) / len(sums) for name in sums[0]})
                sums.clear()
            if time.monotonic() - validated > 60 * validate_minutes:
                self._keep_best()
                validated = time.monotonic()
            if time.monotonic() - saved > 60 * save_minutes:
                self.save()
                saved = time.monotonic()
        self._keep_best()
        self.save()

    def validate(self) -> dict[str, float]:
        """Losses and shares of right answer tokens over the validation functions, task by task."""
        found: dict[str, float] = {}
        for task, share in (("optimize", 0.0), ("feedback", 1.0)):
            examples = self._validation.epoch(0, self._recipe.seed, share)[:_VALIDATED]
            found |= {f"{task}_{name}": value for name, value in self._measure(examples).items()}
        return found

    def _keep_best(self) -> None:
        values = self.validate()
        self._write("valid", values)
        if values.get("optimize_loss", math.inf) < self.position.best:
            self.position.best = values["optimize_loss"]
            self.save(BEST)

    @torch.inference_mode()
    def _measure(self, examples: list[Example]) -> dict[str, float]:
        sums = {"loss": 0.0, "prompt_loss": 0.0, "right": 0.0}
        answers = 0
        for batch in batches(examples, self._recipe.batch_tokens, self._recipe.prompt_share, "validation"):
            measured, count = losses(self.model, batch, bf16=self._bf16), len(batch.answers)
            for name, value in zip(sums, (measured.answers, measured.prompts, measured.right), strict=True):
                sums[name] += float(value) * count
            answers += count
        return {name: value / answers for name, value in sums.items()} if answers else {}

    def _batches(self) -> Iterator[Batch]:
        """The batches that are left, until the budget is used up; counts the epochs."""
        recipe = self._recipe
        while True:
            epoch = self.position.epoch
            examples = self._training.epoch(epoch, recipe.seed, recipe.feedback_share, recipe.tie_share)
            order = batches(examples, recipe.batch_tokens, recipe.prompt_share, f"{recipe.seed} {epoch}")
            for batch in order[self.position.batch :]:
                if self.spent >= 1:
                    return
                yield batch
            self.position.epoch, self.position.batch = epoch + 1, 0

    def _step(self, batch: Batch) -> dict[str, float]:
        began, recipe = time.monotonic(), self._recipe
        rate = learning_rate(recipe, self.position.step, self.spent)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        found = losses(self.model, batch, bf16=self._bf16)
        (found.answers + recipe.prompt_weight * found.prompts).backward()  # pyright: ignore[reportUnknownMemberType]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self._optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self._optimizer.zero_grad()
        self.position.step += 1
        self.position.batch += 1
        self.position.tokens += batch.used
        seconds = time.monotonic() - began
        self.position.seconds += seconds
        return {
            "loss": float(found.answers.detach()),
            "prompt_loss": float(found.prompts.detach()),
            "right": float(found.right),
            "norm": float(norm),
            "rate": rate,
            "tokens_a_second": batch.used / seconds,
        }

    def _write(self, kind: str, values: dict[str, float]) -> None:
        at = self.position
        record = Record(kind, at.step, at.epoch, at.tokens, round(at.seconds, 1), values)
        with (self._directory / LOG).open("a") as log:
            log.write(json.dumps(asdict(record)) + "\n")
        self._report(record, self.spent)


def load_checkpoint(path: Path) -> Llama:
    """The model of a training's checkpoint.

    Raises:
        ModelError: the file cannot be read, or is no checkpoint.
    """
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        model = Llama(Shape(**saved["shape"]))
        model.load_state_dict(saved["model"])
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # torch has many, without a common base
        raise ModelError(f"{path} is not a checkpoint the training wrote") from error
    return model


def _optimizer(model: Llama, recipe: Recipe) -> torch.optim.AdamW:
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [one for one in parameters if one.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [one for one in parameters if one.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=(0.9, 0.95), fused=True)
