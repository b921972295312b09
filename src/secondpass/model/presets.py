"""Shapes of models and recipes to train them, as checked values. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from secondpass.errors import ModelError


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ModelError(what)


def _require_positive(values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        _require(value > 0, f"{type(values).__name__}.{name} must be positive, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes of a Llama model. `config.json` of `transformers` has the same, under its own names."""

    vocabulary: int
    """Token ids; the tokenizer's `size`."""
    context: int = 1536
    """Tokens it is trained on at most: prompt, answers and feedback together."""
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

    def __post_init__(self) -> None:
        """Check that the sizes fit one another; raises ModelError."""
        _require_positive(self, *(field.name for field in fields(self)))
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
    def parameters(self) -> int:
        """Trained numbers; the output layer shares the embedding's."""
        attention = self.width * self.head_width * 2 * (self.heads + self.key_value_heads)
        layer = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return self.vocabulary * self.width + self.layers * layer + self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained: AdamW, a warm-up, then a cosine down to a share of the peak."""

    batch_tokens: int = 8192
    """Tokens a step, padding included."""
    peak_rate: float = 1.5e-3
    """The learning rate after the warm-up."""
    final_share: float = 0.1
    """The last learning rate, as a share of the peak."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 0.1
    """AdamW's decay of the matrices; norms have none."""
    clip_norm: float = 1.0
    """The gradient's norm is cut to this."""
    prompt_weight: float = 0.2
    """Weight of the prompts' mean loss beside the answers' mean loss, which has weight 1."""
    prompt_share: float = 0.25
    """Share of a prompt's tokens that are trained in one step, drawn anew each time: it estimates the
    same mean loss without computing all the logits."""
    feedback_share: float = 0.3
    """Share of the examples that train the second answer, after a feedback."""
    tie_share: float = 0.4
    """Share of the functions on which nothing beats -Oz that an epoch takes. All lists are as good there
    as -Oz, which is a candidate anyway: time is better spent on the others."""
    seed: int = 0
    """Of the initial weights, the order of the data and all that is drawn."""

    def __post_init__(self) -> None:
        """Check the ranges; raises ModelError."""
        _require_positive(self, "batch_tokens", "peak_rate", "warmup_steps", "clip_norm")
        for name in ("final_share", "prompt_share", "feedback_share", "tie_share"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"Recipe.{name} must lie between 0 and 1, not {value}")
        for name in ("weight_decay", "prompt_weight"):
            value = getattr(self, name)
            _require(value >= 0, f"Recipe.{name} must not be negative, not {value}")


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"context": 512, "width": 64, "layers": 2, "heads": 2, "key_value_heads": 1, "feed_forward": 176},
    "small": {},
}
"""Shapes by name, without the vocabulary: `tiny` for tests, `small` for two CPU cores and an hour."""


def shape(name: str, vocabulary: int) -> Shape:
    """The shape of that name for a tokenizer of that size.

    Raises:
        ModelError: there is no such shape.
    """
    if name not in SHAPES:
        raise ModelError(f"no shape is called '{name}'; there are {', '.join(SHAPES)}")
    return Shape(vocabulary=vocabulary, **SHAPES[name])
