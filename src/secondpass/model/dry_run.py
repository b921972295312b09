"""What a training would need, without training: parameters, memory of a device, and how a step is dealt.

    estimate = dry_run(preset("paper-7b"), devices=8)

The model is made on torch's meta device, where tensors have sizes and no memory. Activations are counted there: every
tensor that a forward pass keeps for the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from secondpass.model import llama
from secondpass.model.presets import Preset, Recipe, Shape

_ANSWERS = 0.2
"""Share of the tokens taken to be of answers, all of which are learnt."""
_ATTENTION = "secondpass_counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The needs of a training; memory in bytes of one device."""

    preset: str
    """Its name."""
    parameters: int
    """Trained numbers."""
    devices: int
    """Processes, each with a device."""
    step_tokens: int
    """Tokens of an optimiser step over all devices."""
    accumulation: int
    """Forward passes of a step on each device."""
    weights: int
    """In float32; with FSDP a device's share of them."""
    gradients: int
    """Likewise; copies that are exchanged between devices included."""
    optimiser: int
    """AdamW's two numbers a parameter; likewise."""
    gathered: int
    """With FSDP: whole layers that are at work (two, and both tables), and one layer's gradients."""
    activations: int
    """Of one forward pass."""
    method: str
    """How the activations were counted."""

    @property
    def memory(self) -> int:
        """All of it; torch's own needs and fragmentation, a few GiB on a GPU, come on top."""
        return self.weights + self.gradients + self.optimiser + self.gathered + self.activations


def dry_run(chosen: Preset, devices: int) -> Estimate:
    """Count what a training needs.

    Args:
        chosen: shape and recipe.
        devices: how many take part.

    Raises:
        ModelError: a step cannot be dealt to so many.
    """
    shape, recipe = chosen.shape, chosen.recipe
    accumulation = recipe.accumulation(devices)
    model: Any = llama.unfilled(shape, end=None, device="meta")
    parameters = sum(it.numel() for it in model.parameters())
    sharded = recipe.fsdp and devices > 1
    held = -(-parameters // devices) if sharded else parameters
    exchanged = held if devices > 1 and not sharded else 0  # DDP's buckets
    tables = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    size = 2 if recipe.bf16 else 4
    gathered = (2 * shape.layer_parameters + tables) * size + 4 * shape.layer_parameters if sharded else 0
    return Estimate(
        preset=chosen.name,
        parameters=parameters,
        devices=devices,
        step_tokens=recipe.step_tokens,
        accumulation=accumulation,
        weights=4 * held,
        gradients=4 * (held + exchanged),
        optimiser=8 * held,
        gathered=gathered,
        activations=_activations(shape, recipe, sharded),
        method=_method(recipe, sharded),
    )


def _method(recipe: Recipe, sharded: bool) -> str:
    kept = "each layer's input and one layer's tensors" if recipe.recompute else "every layer's tensors"
    kind = "float32" if not recipe.bf16 else "bfloat16" if sharded else "float32 and bfloat16, halfway between them"
    copies = ", with autocast's copies of the weights" if recipe.bf16 and not sharded else ""
    return (
        f"{kept} that a forward pass of {recipe.device_tokens} tokens keeps for the backward pass, counted on the meta "
        f"device in {kind}, with fused attention{copies}; and the gradient of the logits; {_ANSWERS:.0%} of the tokens "
        "taken to be of answers"
    )


def _activations(shape: Shape, recipe: Recipe, sharded: bool) -> int:
    row = min(shape.context, recipe.device_tokens)
    rows = recipe.device_tokens // row
    tokens = rows * row
    learnt = int(tokens * (_ANSWERS + (1 - _ANSWERS) * recipe.prompt_share * (recipe.prompt_weight > 0)))
    one, two = (_kept(replace(shape, layers=layers), rows, row, learnt, recipe.bf16, sharded) for layers in (1, 2))
    layer, rest = two - one, 2 * one - two
    logits = 4 * learnt * shape.vocabulary
    if recipe.recompute:
        inputs = shape.layers * tokens * shape.width * (2 if sharded and recipe.bf16 else 4)
        return rest + inputs + layer + logits
    return rest + shape.layers * layer + logits


def _kept(shape: Shape, rows: int, length: int, learnt: int, bf16: bool, sharded: bool) -> int:
    """`kept_bytes` as a training with this kind of mixed precision has it."""
    if not bf16:
        return kept_bytes(shape, rows, length, learnt, torch.float32)
    low = kept_bytes(shape, rows, length, learnt, torch.bfloat16)
    if sharded:  # FSDP keeps all of a layer in bfloat16
        return low
    # Autocast casts the inputs of matrix products, weights included, and leaves the rest in float32.
    return (low + kept_bytes(shape, rows, length, learnt, torch.float32)) // 2 + 2 * shape.parameters


def kept_bytes(shape: Shape, rows: int, length: int, learnt: int, dtype: torch.dtype) -> int:
    """Bytes that one forward pass keeps for its backward pass, weights apart.

    Args:
        shape: of the model.
        rows: of the pass.
        length: tokens of each row.
        learnt: targets.
        dtype: of weights and hidden states.
    """
    llama.transformers.AttentionInterface.register(_ATTENTION, _attention)
    model: Any = llama.unfilled(shape, end=None, device="meta")
    model.set_attn_implementation(_ATTENTION)
    model.model.rotary_emb = _Rotation(shape.head_width)
    model.to(dtype).train()
    return saved_bytes(model, rows, length, learnt, "meta")


def saved_bytes(model: Any, rows: int, length: int, learnt: int, device: str) -> int:
    """Run a forward pass over zeros; bytes of the tensors that autograd keeps, each memory counted once."""
    weights = {id_of(it) for it in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id_of(tensor) not in weights:
            kept[id_of(tensor)] = tensor
        return tensor

    names = ("input_ids", "position_ids", "examples", "answers")
    inputs = {name: torch.zeros(rows, length, dtype=torch.int64, device=device) for name in names}
    inputs |= {name: torch.zeros(learnt, dtype=torch.int64, device=device) for name in ("learnt", "targets")}
    inputs["weights"] = torch.zeros(learnt, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(**inputs, causal=0)
    return sum(it.untyped_storage().nbytes() for it in kept.values())


def id_of(tensor: Tensor) -> int:
    """What tensors that share their memory have in common."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **_: Any) -> tuple[Tensor, None]:
    """`transformers`' sdpa attention as a fused kernel does it: no scores are kept."""
    groups = module.num_key_value_groups
    # As `transformers` repeats them: a single head is not copied.
    key, value = (it[:, :, None].expand(-1, -1, groups, -1, -1).flatten(1, 2) for it in (key, value))
    fused: Any = _Fused
    mixed: Tensor = fused.apply(query, key, value, mask)
    return mixed.transpose(1, 2).contiguous(), None


class _Rotation(torch.nn.Module):
    """Sines and cosines of positions as far as their sizes go: `transformers` 4 cannot make them on the meta device."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, hidden: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = hidden.new_empty(2, *position_ids.shape, self._width)
        return cosine.clone(), sine.clone()


class _Fused(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps; computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        mixed = torch.empty_like(query)
        norms = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, mask, mixed, norms)
        return mixed
