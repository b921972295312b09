"""The Llama architecture: RMSNorm, rotary positions, grouped-query attention, SwiGLU, tied embeddings.

Parameter names and the halves of the rotation are those of `transformers`' Llama, so the weights load
there as they are (with the prefix `model.`). The module knows token ids; it knows nothing of text,
training or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from secondpass.model.presets import Shape

KeyValue = tuple[Tensor, Tensor]
"""One layer's keys and values, each (batch, key_value_heads, tokens, head_width)."""


class Llama(nn.Module):
    """Token ids to hidden states, and hidden states to logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self._initialise()

    def forward(self, tokens: Tensor, past: Sequence[KeyValue] = ()) -> tuple[Tensor, list[KeyValue]]:
        """Read tokens after what was read before.

        Args:
            tokens: ids, (batch, tokens). A row may be padded at its end: nothing looks ahead.
            past: what an earlier call returned, a pair a layer; empty at the beginning.

        Returns:
            The hidden states after the last norm, (batch, tokens, width), and the KV cache with
            these tokens in it.
        """
        before = past[0][0].shape[2] if past else 0
        rotation = self._rotation(before, tokens.shape[1], tokens.device)
        hidden: Tensor = self.embed_tokens(tokens)
        present: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            hidden, keys_values = layer(hidden, rotation, past[index] if past else None)
            present.append(keys_values)
        return self.norm(hidden), present

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token, (..., vocabulary), of hidden states (..., width)."""
        return functional.linear(hidden, self.embed_tokens.weight)

    def _rotation(self, start: int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the positions from `start`, each (count, head_width)."""
        width = self.shape.head_width
        exponents = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
        positions = torch.arange(start, start + count, device=device, dtype=torch.float32)
        angles = positions[:, None] * self.shape.rope_theta**-exponents
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()

    def _initialise(self) -> None:
        """GPT-2's initial weights: deviation 0.02, less for what is added to the residual stream."""
        residual = 0.02 / (2 * self.shape.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=residual if added else 0.02)


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.mlp = _FeedForward(shape)

    def forward(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        attended, present = self.self_attn(self.input_layernorm(hidden), rotation, past)
        hidden = hidden + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden)), present


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        shared = shape.key_value_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, shared, bias=False)
        self.v_proj = nn.Linear(shape.width, shared, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(
        self, hidden: Tensor, rotation: tuple[Tensor, Tensor], past: KeyValue | None
    ) -> tuple[Tensor, KeyValue]:
        query = _rotate(self._heads(self.q_proj(hidden)), rotation)
        key = _rotate(self._heads(self.k_proj(hidden)), rotation)
        value = self._heads(self.v_proj(hidden))
        if past is not None:
            key, value = torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)
        groups = self._shape.heads // self._shape.key_value_heads
        mixed = functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(groups, dim=1),
            value.repeat_interleave(groups, dim=1),
            attn_mask=None if past is None else _causal(query, key),
            is_causal=past is None,
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), (key, value)

    def _heads(self, projected: Tensor) -> Tensor:
        """(batch, tokens, heads x head_width) to (batch, heads, tokens, head_width)."""
        rows, tokens, _ = projected.shape
        return projected.view(rows, tokens, -1, self._shape.head_width).transpose(1, 2)


class _FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


def _rotate(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of elements (first half, second half) by its position's angle."""
    cosine, sine = (part.to(heads.dtype) for part in rotation)
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


def _causal(query: Tensor, key: Tensor) -> Tensor:
    """Which keys each query may see: those up to its own position; (queries, keys)."""
    queries, keys = query.shape[2], key.shape[2]
    positions = torch.arange(keys, device=query.device)
    return positions <= positions[keys - queries :, None]
