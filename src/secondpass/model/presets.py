"""Shapes of models and recipes to train them, as checked values, and the presets people name.

    chosen = override(preset("tiny"), ["steps=500", "peak_rate=1e-3"])

Everything that decides what a training does stands in a preset, so that a checkpoint can say exactly how it came
about. Nothing here loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from secondpass.errors import ModelError


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ModelError(what)


def _require_positive(values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        _require(0 < value < math.inf, f"{type(values).__name__}.{name} must be positive, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a Llama model. `config.json` of `transformers` has the same, under its own names."""

    vocabulary: int = 4096
    """Token ids; a training takes its tokenizer's `size`."""
    context: int = 1536
    """The longest sequence: tokens of prompt, answers and feedback together."""
    width: int = 256
    """Elements of a token's hidden state."""
    layers: int = 6
    """Decoder layers."""
    heads: int = 4
    """Query heads; each has `width / heads` elements."""
    key_value_heads: int = 2
    """Key and value heads, shared by groups of query heads; the KV cache grows with them."""
    feed_forward: int = 704
    """Elements between the two halves of the SwiGLU."""
    rope_theta: float = 10_000.0
    """Base of the rotary position encoding's wave lengths."""
    norm_epsilon: float = 1e-5
    """Added to the mean square in RMSNorm."""
    tied: bool = True
    """Whether the output layer shares the embedding's weights."""

    def __post_init__(self) -> None:
        """Check that the sizes fit one another; raises ModelError."""
        _require_positive(self, *(it.name for it in fields(self) if it.name != "tied"))
        _require(
            self.width % self.heads == 0 and self.head_width % 2 == 0,
            f"Shape.width {self.width} is not an even number for each of {self.heads} heads",
        )
        _require(
            self.heads % self.key_value_heads == 0,
            f"Shape.heads {self.heads} is not a multiple of key_value_heads {self.key_value_heads}",
        )

    @property
    def head_width(self) -> int:
        """Elements of one head."""
        return self.width // self.heads

    @property
    def layer_parameters(self) -> int:
        """Trained numbers of one decoder layer."""
        attention = self.width * self.head_width * 2 * (self.heads + self.key_value_heads)
        return attention + 3 * self.width * self.feed_forward + 2 * self.width

    @property
    def parameters(self) -> int:
        """Trained numbers of the model."""
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * self.width + self.layers * self.layer_parameters + self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained: AdamW, a warm-up, then a cosine down to a share of the peak."""

    steps: int = 2_000
    """Optimiser steps."""
    step_tokens: int = 8_192
    """Tokens of one optimiser step over all devices, padding included."""
    device_tokens: int = 8_192
    """Tokens of one forward pass on one device, padding included. Memory grows with it; gradients are accumulated
    over `step_tokens / device_tokens / devices` passes."""
    packing: bool = False
    """Whether several examples share a row, without seeing each other. Rows of examples of like length hold a few
    per cent of padding and need less attention; packed rows hold almost none and have one shape."""
    answers: int = 2
    """Answers of an example that are trained at once; of more, so many are drawn by their shares each epoch."""
    counted: int = 0
    """Counted lists of an example that are trained at once, drawn anew each epoch: good or not, only what they leave of
    the function is learnt."""
    count_weight: float = 0.5
    """Weight of the mean loss of these counts."""
    gain_power: float = 0.0
    """An example's answers weigh its gain to this power: at 0 all functions weigh alike, at 1 what they can gain. Above
    0 those of examples of gain 0 are not learnt, which leaves their prompts and counted lists."""
    peak_rate: float = 1.5e-3
    """The learning rate after the warm-up."""
    final_share: float = 0.1
    """The last learning rate, as a share of the peak."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay of the mean gradient and of the mean square."""
    weight_decay: float = 0.1
    """AdamW's decay of the matrices; norms have none."""
    clip_norm: float = 1.0
    """The gradient's norm is cut to this."""
    prompt_weight: float = 0.2
    """Weight of the prompts' mean loss beside the answers' mean loss, which has weight 1."""
    prompt_share: float = 0.25
    """Share of a prompt's tokens that are learnt in one epoch, drawn anew each time: it estimates the same mean
    loss without computing all the logits."""
    tie_share: float = 0.4
    """Share of the examples of gain 0, on which nothing beats -Oz, that an epoch takes. All lists are as good there
    as -Oz, which is a candidate anyway: time is better spent on the others."""
    bf16: bool = True
    """Matrix products in bfloat16; weights and optimiser stay in float32."""
    fsdp: bool = False
    """Whether several devices share weights, gradients and optimiser state (FSDP) instead of holding copies."""
    recompute: bool = False
    """Whether a layer's activations are computed again in the backward pass instead of being kept."""
    seed: int = 0
    """Of the initial weights, the order of the data and all that is drawn."""
    log_steps: int = 10
    """Steps between two records of the training loss."""
    checkpoint_steps: int = 200
    """Steps between two checkpoints."""
    validate_steps: int = 200
    """Steps between two validations."""
    measured_functions: int = 200
    """Validation functions whose greedy answers are compiled in a validation, where there is a corpus; 0 for none."""
    tensorboard: bool = False
    """Whether the log is written for TensorBoard too."""

    def __post_init__(self) -> None:
        """Check the ranges; raises ModelError."""
        counts = ("steps", "step_tokens", "device_tokens", "answers", "warmup_steps")
        _require_positive(self, *counts, "log_steps", "checkpoint_steps", "validate_steps", "peak_rate", "clip_norm")
        for name in ("final_share", "prompt_share", "tie_share"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"Recipe.{name} must lie between 0 and 1, not {value}")
        weights = "weight_decay", "prompt_weight", "count_weight", "gain_power"
        for name in (*weights, "counted", "seed", "measured_functions"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"Recipe.{name} must not be negative, not {value}")
        _require(
            len(self.betas) == 2 and all(0 <= it < 1 for it in self.betas),
            f"Recipe.betas must be two numbers from 0 to less than 1, not {self.betas}",
        )
        _require(
            self.warmup_steps <= self.steps,
            f"Recipe.warmup_steps {self.warmup_steps} are more than all {self.steps} steps",
        )
        _require(
            self.step_tokens % self.device_tokens == 0,
            f"Recipe.step_tokens {self.step_tokens} is not a multiple of device_tokens {self.device_tokens}",
        )

    @property
    def passes(self) -> int:
        """Forward passes of one optimiser step, over all devices."""
        return self.step_tokens // self.device_tokens

    def accumulation(self, devices: int) -> int:
        """Forward passes of one optimiser step on each device.

        Raises:
            ModelError: they cannot be dealt evenly.
        """
        _require(
            self.passes % devices == 0,
            f"{self.passes} forward passes a step (Recipe.step_tokens {self.step_tokens} / device_tokens "
            f"{self.device_tokens}) cannot be dealt to {devices} devices evenly; change one of them",
        )
        return self.passes // devices

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.peak_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.peak_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A shape with the recipe that suits it."""

    name: str
    """What it is called."""
    shape: Shape = field(default_factory=Shape)
    """The model."""
    recipe: Recipe = field(default_factory=Recipe)
    """The training."""

    def settings(self) -> dict[str, Any]:
        """Every field of shape and recipe by name, as JSON has them."""
        values = {**asdict(self.shape), **asdict(self.recipe)}
        return values | {"betas": list(self.recipe.betas)}


PRESETS: Mapping[str, Preset] = {
    it.name: it
    for it in (
        Preset(
            name="tiny",
            shape=Shape(width=320, layers=6, heads=5, key_value_heads=1, feed_forward=864),
        ),
        Preset(
            name="small",
            shape=Shape(context=3072, width=512, layers=10, heads=8, key_value_heads=2, feed_forward=1408),
            recipe=Recipe(
                steps=20_000,
                step_tokens=65_536,
                device_tokens=65_536,
                answers=8,
                counted=6,
                gain_power=0.5,
                peak_rate=1e-3,
                warmup_steps=500,
                checkpoint_steps=1_000,
                validate_steps=1_000,
            ),
        ),
        Preset(
            name="base",
            shape=Shape(context=4096, width=1024, layers=28, heads=16, key_value_heads=8, feed_forward=3072),
            recipe=Recipe(
                steps=20_000,
                step_tokens=262_144,
                device_tokens=16_384,
                packing=True,
                answers=4,
                peak_rate=4e-4,
                warmup_steps=1_000,
                fsdp=True,
                checkpoint_steps=1_000,
                validate_steps=1_000,
            ),
        ),
        # Grubisic et al. 2024: Llama 2's shape, batches of 256 sequences. Weight decay and clipping are Llama 2's own.
        Preset(
            name="paper-7b",
            shape=Shape(
                vocabulary=32_000,
                context=4096,
                width=4096,
                layers=32,
                heads=32,
                key_value_heads=32,
                feed_forward=11_008,
                tied=False,
            ),
            recipe=Recipe(
                steps=20_000,
                step_tokens=256 * 4096,
                device_tokens=4096,
                packing=True,
                answers=1,
                peak_rate=1e-5,
                warmup_steps=1_000,
                prompt_weight=1.0,
                tie_share=1.0,
                fsdp=True,
                recompute=True,
                checkpoint_steps=1_000,
                validate_steps=1_000,
            ),
        ),
    )
}
"""By name. `tiny` has about 8 million parameters and is for two CPU cores, `small` 30 million, `base` 350 million;
`paper-7b` is the paper's."""


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ModelError: there is none.
    """
    if name not in PRESETS:
        raise ModelError(f"no preset is called '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def override(chosen: Preset, words: Iterable[str]) -> Preset:
    """A preset with some fields of its shape and recipe changed.

    Args:
        chosen: what to begin with.
        words: such as `steps=500` or `betas=0.9,0.95`; all fields but the shape's `vocabulary`.

    Raises:
        ModelError: a word names no field, or its value does not fit the field or the others.
    """
    values: dict[str, dict[str, Any]] = {"shape": {}, "recipe": {}}
    for word in words:
        name, _, text = word.partition("=")
        if name not in _FIELDS:
            raise ModelError(f"'{word}': no field is called '{name}'; give FIELD=VALUE of {', '.join(_FIELDS)}")
        part, kind = _FIELDS[name]
        parse, allowed = _KINDS[kind]
        try:
            values[part][name] = parse(text)
        except ValueError:
            raise ModelError(f"'{word}': {name} takes {allowed}, not '{text}'") from None
    return replace(
        chosen,
        shape=replace(chosen.shape, **values["shape"]),
        recipe=replace(chosen.recipe, **values["recipe"]),
    )


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _pair(text: str) -> tuple[float, float]:
    first, second = map(float, text.split(","))
    return first, second


_KINDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (_truth, "true or false"),
    "tuple[float, float]": (_pair, "two numbers with a comma between them"),
}
_FIELDS = {
    it.name: (part, str(it.type))
    for part, kind in (("shape", Shape), ("recipe", Recipe))
    for it in fields(kind)
    if it.name != "vocabulary"
}
