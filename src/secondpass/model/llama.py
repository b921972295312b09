"""Llama of `transformers`, with our loss inside its forward pass, so that it works whatever it is wrapped in.

    model = initial(shape, end=tokenizer.id_of(END), seed=0)
    found = model(input_ids=..., position_ids=..., examples=..., answers=..., learnt=..., targets=..., weights=...)

A checkpoint's directory is one of `transformers` (`config.json`, `model.safetensors`), so any tool that reads Llama
reads it. The module knows token ids; it knows nothing of text, data or devices.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import transformers as untyped_transformers
from torch import Tensor
from torch.nn import functional

from secondpass.errors import ModelError
from secondpass.model.presets import Shape

transformers: Any = untyped_transformers
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()  # the package has its own

CONFIG, WEIGHTS = "config.json", "model.safetensors"


# Named as its base: the name goes into `config.json`, where other tools look it up.
class LlamaForCausalLM(transformers.LlamaForCausalLM):  # pyright: ignore[reportUntypedBaseClass]
    """Token ids to logits as in `transformers`; to the loss where it is told what is learnt."""

    accepts_loss_kwargs = False  # the weights say everything already

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """Read tokens.

        Args:
            args: as the base class takes them.
            inputs: likewise; or the arrays of `batches.Batch` as tensors, with `input_ids` for its tokens and
                `position_ids` for its positions, and its number `causal`. Where the rows are causal to their ends,
                there need be no `position_ids`, `examples` and `answers`.

        Returns:
            What the base class returns; or with `learnt`, a dictionary: `loss`, the weighted sum of the
            `losses`; `losses`, the cross entropy of each target in nats, (learnt,); `right`, whether it ranks first,
            (learnt,).
        """
        if "learnt" not in inputs:
            return super().forward(*args, **inputs)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        embedded: Tensor = self.model.embed_tokens(inputs["input_ids"])
        seen: dict[str, Any] = {}
        if "examples" in inputs:
            mask = _bias(visible(inputs["examples"], inputs["answers"]), embedded)
            seen = {"position_ids": inputs["position_ids"], "attention_mask": mask, "causal": inputs["causal"]}
        hidden = self.model(inputs_embeds=embedded, use_cache=False, **seen).last_hidden_state
        # Logits are the largest arrays there are: they are made only where something is learnt.
        logits = self.lm_head(hidden.flatten(0, 1)[inputs["learnt"]]).float()
        targets = inputs["targets"]
        losses = functional.cross_entropy(logits, targets, reduction="none")
        return {
            "loss": (losses * inputs["weights"]).sum(),
            "losses": losses.detach(),
            "right": logits.detach().argmax(-1) == targets,
        }

    def recompute(self) -> None:
        """Compute each layer's activations again in the backward pass instead of keeping them."""
        enable: Any = getattr(self, "activation_checkpointing_enable", None) or self.gradient_checkpointing_enable
        enable()


def visible(examples: Tensor, answers: Tensor) -> Tensor:
    """Which tokens (last axis) each token sees: `batches.Batch` says which, (rows, 1, length, length)."""
    same = examples[:, :, None] == examples[:, None, :]
    open_to = (answers[:, None, :] == 0) | (answers[:, None, :] == answers[:, :, None])
    return (same & open_to).tril()[:, None]


def _bias(seen: Tensor, embedded: Tensor) -> Tensor:
    """What to add to attention scores, in the kind of number attention computes in.

    In any other kind, truth values included, every layer would make a copy of its own and keep it.
    """
    kind = embedded.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if casts else embedded.dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, causal: int = 0, **more: Any
) -> tuple[Tensor, None]:
    """`transformers`' sdpa attention, without a mask as far as rows are causal.

    Kernels skip what causality hides, half of all pairs, and compute what a mask hides; only tails of rows need one.
    """
    attend = transformers.integrations.sdpa_attention.sdpa_attention_forward
    if not causal or attention_mask is None:
        return attend(module, query, key, value, attention_mask, **more)
    head, _ = attend(module, *(it[:, :, :causal] for it in (query, key, value)), None, **more)
    tail, _ = attend(module, query[:, :, causal:], key, value, attention_mask[:, :, causal:], **more)
    return torch.cat((head, tail), dim=1), None


_ATTENTION = "secondpass_rows"
transformers.AttentionInterface.register(_ATTENTION, _attention)
transformers.AttentionMaskInterface.register(_ATTENTION, transformers.masking_utils.sdpa_mask)


def config_of(shape: Shape, end: int | None = None) -> Any:
    """The configuration that `transformers` has for a shape.

    Args:
        shape: the sizes.
        end: id of the token that ends an answer.
    """
    return transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.feed_forward,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.norm_epsilon,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=end,
        attn_implementation=_ATTENTION,
    )


def shape_of(config: Any) -> Shape:
    """The inverse of `config_of`.

    Raises:
        ModelError: no such sizes are possible.
    """
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta}
    return Shape(
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        key_value_heads=config.num_key_value_heads,
        feed_forward=config.intermediate_size,
        rope_theta=rope["rope_theta"],
        norm_epsilon=config.rms_norm_eps,
        tied=config.tie_word_embeddings,
    )


def initial(shape: Shape, *, end: int | None, seed: int) -> LlamaForCausalLM:
    """A model with random weights: GPT-2's, of deviation 0.02, less for what is added to the residual stream.

    Args:
        shape: the sizes.
        end: id of the token that ends an answer.
        seed: of the weights.
    """
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
    model = LlamaForCausalLM(config_of(shape, end))
    with torch.no_grad():
        for name, parameter in _parameters(model):
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter /= (2 * shape.layers) ** 0.5
    return model


def unfilled(shape: Shape, *, end: int | None, device: str = "cpu") -> LlamaForCausalLM:
    """A model whose weights are whatever the memory holds, which costs none until they are written.

    Args:
        shape: the sizes.
        end: id of the token that ends an answer.
        device: `meta` for one without memory at all.
    """
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config_of(shape, end))
    if device != "meta":
        model.to_empty(device=device)
        model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)  # not a weight: nobody writes it
        model.tie_weights()
    return model


def load(directory: Path) -> LlamaForCausalLM:
    """The model of a checkpoint, in float32.

    Raises:
        ModelError: the directory holds none, or it is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file() and not list(directory.glob("model-*.safetensors")):
            raise ModelError(f"{directory} is not a checkpoint: it has no {name}; name a checkpoint-N of a training")
    try:
        model: Any = LlamaForCausalLM.from_pretrained(directory, local_files_only=True, attn_implementation=_ATTENTION)
        return model.float()
    except Exception as error:  # transformers and safetensors have many, without a common base
        raise ModelError(f"{directory} is damaged ({' '.join(str(error).split())[:160]}); take another one") from error


def difference(found: Shape, wanted: Shape) -> str | None:
    """What makes weights of one shape useless for another; None where nothing does. The context does not matter."""
    for it in fields(Shape):
        one, other = getattr(found, it.name), getattr(wanted, it.name)
        if it.name != "context" and one != other:
            return f"{it.name} {one}, not {other}"
    return None


def _parameters(model: Any) -> list[tuple[str, Tensor]]:
    return list(model.named_parameters())
