"""From a model directory back to a checkpoint: the inverse of `model.export`, for its quantised networks.

An exported network holds all a model is, with each weight rounded to 7 bits. With its weights taken out, `transformers`
runs it, and it can be trained further: the model in the box too, whose training's own checkpoints are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from secondpass.errors import ModelError
from secondpass.model import llama
from secondpass.model.manifest import NETWORK, TOKENIZER, Manifest
from secondpass.model.presets import Shape
from secondpass.model.run import complete
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import END


def unpack(directory: Path, checkpoint: Path) -> Shape:
    """Write the checkpoint that an exported model would be exported from, up to the rounding of its weights.

    Args:
        directory: a model directory with a quantised network.
        checkpoint: made where it does not exist.

    Returns:
        The model's sizes.

    Raises:
        ModelError: the directory is no model, or its network is not a quantised one of `model.export`.
    """
    facts, tokenizer = Manifest.read(directory), Tokenizer.load(directory / TOKENIZER)
    try:
        shape, weights = _Reader(onnx.ModelProto.FromString((directory / NETWORK).read_bytes()), facts).read()
    except (KeyError, ValueError, IndexError, StopIteration, DecodeError) as error:
        raise ModelError(
            f"{directory / NETWORK} is not a quantised network as scripts/export_model.py writes it ({error!r}); "
            "name such a directory"
        ) from error
    model: Any = llama.unfilled(shape, end=tokenizer.id_of(END))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights[name.removeprefix("model.")]))
    model.save_pretrained(checkpoint)
    complete(checkpoint, facts, directory / TOKENIZER)
    return shape


class _Reader:
    """The weights of a network, found by the operations that use them, which come in the order of the layers."""

    def __init__(self, network: onnx.ModelProto, facts: Manifest) -> None:
        self._facts, self._nodes = facts, list(network.graph.node)
        self._constants = {it.name: numpy_helper.to_array(it) for it in network.graph.initializer}

    def read(self) -> tuple[Shape, dict[str, NDArray[np.float32]]]:
        products, norms = self._products(), self._norms()
        width = int(next(self._norms()).shape[0])
        heads, shared = width // self._facts.head_width, self._facts.key_value_heads
        weights: dict[str, NDArray[np.float32]] = {}
        for layer in range(self._facts.layers):
            name = f"layers.{layer}"
            together = [next(products)]
            if layer == self._facts.layers - 1:
                together.append(next(products))  # there queries have a product of their own
            parts = np.split(np.concatenate(together), np.cumsum((heads, shared)) * self._facts.head_width)
            for part, weight in zip("qkv", parts, strict=True):
                weights[f"{name}.self_attn.{part}_proj.weight"] = weight
            weights[f"{name}.self_attn.q_proj.weight"] *= np.float32(self._facts.head_width**0.5)  # see the export
            weights[f"{name}.self_attn.o_proj.weight"] = next(products)
            both = np.split(next(products), 2)
            weights[f"{name}.mlp.gate_proj.weight"], weights[f"{name}.mlp.up_proj.weight"] = both
            weights[f"{name}.mlp.down_proj.weight"] = next(products)
            weights[f"{name}.input_layernorm.weight"] = next(norms)
            weights[f"{name}.post_attention_layernorm.weight"] = next(norms)
        weights["embed_tokens.weight"], weights["norm.weight"] = next(products), next(norms)
        shape = Shape(
            vocabulary=len(weights["embed_tokens.weight"]),
            context=self._facts.context_length,
            width=width,
            layers=self._facts.layers,
            heads=heads,
            key_value_heads=shared,
            feed_forward=len(weights["layers.0.mlp.up_proj.weight"]),
            rope_theta=self._rope_theta(),
            norm_epsilon=self._norm_epsilon(),
        )
        return shape, weights

    def _products(self) -> Iterator[NDArray[np.float32]]:
        """Weights (outputs, inputs)."""
        # Each is in two products in a row, one for each integer of the inputs.
        for node in [it for it in self._nodes if it.op_type == "MatMulIntegerToFloat"][::2]:
            integers, scales = self._constants[node.input[1]], self._constants[node.input[3]]
            yield np.ascontiguousarray(integers.T.astype(np.float32) * scales[:, None])

    def _norms(self) -> Iterator[NDArray[np.float32]]:
        for node in self._nodes:
            if node.op_type.endswith("SimplifiedLayerNormalization"):
                yield self._constants[node.input[2 if node.op_type.startswith("Skip") else 1]].copy()

    def _norm_epsilon(self) -> float:
        node = next(it for it in self._nodes if it.op_type == "SimplifiedLayerNormalization")
        epsilon = next(it.f for it in node.attribute if it.name == "epsilon")
        return float(f"{epsilon:.6g}")  # the file has it in 32 bits

    def _rope_theta(self) -> float:
        """From the sine of the slowest wave at position 1, which is its frequency's."""
        node = next(it for it in self._nodes if it.op_type == "RotaryEmbedding")
        slowest, width = math.asin(float(self._constants[node.input[3]][1, -1])), self._facts.head_width
        return float(round(slowest ** -(width / (width - 2))))
