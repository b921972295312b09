"""From a checkpoint to a model directory: one int8 ONNX network that works on a KV cache.

The network reads `tokens` tokens in each of `branches` branches of a batch. All branches have the
same past of `prefix` tokens, whose keys and values are given once, and each has `own` tokens of its
own after them:

    tokens           (branches, tokens)                                  ids
    positions        (1, branches x tokens)                              of each token in its sequence
    bias             (branches or 1, tokens, own + tokens)               0, or -inf where a token may not look
    wanted           (logits,)                                           rows of branches x tokens to give logits of: as
                                                                         many of each branch, the last ones
    prefix_key_0 ... (key_value_heads, 1, 1, prefix, head_width)         likewise prefix_value_0 ...
    own_key_0 ...    (key_value_heads, 1, branches, own, head_width)     likewise own_value_0 ...
    -> logits        (logits, vocabulary)
    -> key_0 ...     (key_value_heads, 1, branches, own + tokens, head_width), likewise value_0 ...

So the prefix is neither copied for each branch nor read once for each: all branches' queries meet it
in one matrix product. In the last layer rows that are not wanted have keys and values alone.

Weights are 7-bit integers with a scale for each output. An input of a product is two 8-bit integers, the second for
what rounding to the first leaves: rounded to one alone, inputs change one answer of sixteen. Their scale is a constant
where weights bound the inputs, and else each row's own, never the batch's: an answer does not depend on what else is in
its batch. Seven bits, because processors without VNNI add pairs of products in 16 bits: 8-bit weights
would overflow there, and the same model would answer differently on different machines. A network that is not quantised
has the same inputs and outputs; it is for comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from secondpass.errors import ModelError
from secondpass.model import llama
from secondpass.model.manifest import NETWORK, TOKENIZER, Manifest
from secondpass.model.onnx_graph import MICROSOFT, Graph
from secondpass.model.presets import Shape
from secondpass.model.run import read_facts
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Form

Weights = Mapping[str, NDArray[np.float32]]

_LARGEST_WEIGHT = 63
"""Of a quantised weight, in magnitude: 255 x 63 x 2 still fits 16 bits."""
_LARGEST_INPUT = 127
_ZERO_POINT = 128
"""The unsigned integer that stands for 0 in a quantised input."""


def export_checkpoint(checkpoint: Path, directory: Path, *, name: str | None = None) -> Shape:
    """Write the model directory of a training's checkpoint.

    Args:
        checkpoint: a checkpoint of `model.train`.
        directory: made where it does not exist.
        name: what reports call the model; as in the training where None.

    Returns:
        The model's sizes.

    Raises:
        ModelError: it is no checkpoint, or cannot be exported.
    """
    facts, model = read_facts(checkpoint), llama.load(checkpoint)
    export(
        model,
        Tokenizer.load(checkpoint / TOKENIZER),
        directory,
        name=name or facts.name,
        takes_feedback=facts.takes_feedback,
        feedback_form=facts.feedback_form,
        writes_code=facts.writes_code,
        temperature=facts.temperature,
    )
    return llama.shape_of(model.config)


def export(
    model: llama.LlamaForCausalLM,
    tokenizer: Tokenizer,
    directory: Path,
    *,
    name: str,
    takes_feedback: bool = True,
    feedback_form: Form = Form.FAST,
    writes_code: bool = False,
    temperature: float = 1.0,
    quantised: bool = True,
) -> None:
    """Write a model directory.

    Args:
        model: trained weights.
        tokenizer: the one it was trained with.
        directory: made where it does not exist.
        name: what reports call the model.
        takes_feedback: whether it was trained on Task Feedback too.
        feedback_form: on which form, where it was.
        writes_code: whether it was trained to write code.
        temperature: at which samples are taken where none is asked for.
        quantised: whether weights and their products are integers; float32 otherwise.

    Raises:
        ModelError: tokenizer and model do not belong together, or the output layer has weights of its own.
    """
    shape = llama.shape_of(model.config)
    if tokenizer.size != shape.vocabulary:
        raise ModelError(f"the tokenizer has {tokenizer.size} tokens, the model {shape.vocabulary}")
    if not shape.tied:
        raise ModelError(
            "the exported network has one table for tokens and logits, this model two: train with tied=true, "
            "or run the checkpoint itself"
        )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / NETWORK).write_bytes(network(shape, weights_of(model), quantised=quantised).SerializeToString())
    tokenizer.save(directory / TOKENIZER)
    Manifest(
        name=name,
        context_length=shape.context,
        layers=shape.layers,
        key_value_heads=shape.key_value_heads,
        head_width=shape.head_width,
        takes_feedback=takes_feedback,
        feedback_form=feedback_form,
        writes_code=writes_code,
        temperature=temperature,
    ).write(directory)


def weights_of(model: llama.LlamaForCausalLM) -> Weights:
    """A model's weights by the names of `transformers` without their `model.`; the tied output layer is no other."""
    state: Mapping[str, Any] = cast("Any", model).state_dict()
    return {
        name.removeprefix("model."): tensor.detach().float().cpu().numpy()
        for name, tensor in state.items()
        if name != "lm_head.weight"
    }


def network(shape: Shape, weights: Weights, *, quantised: bool = True) -> onnx.ModelProto:
    """The network of the module's head.

    Args:
        shape: the model's sizes.
        weights: float32 arrays, as `weights_of` gives them.
        quantised: whether weights and their products are integers; float32 otherwise.
    """
    return _Writer(shape, weights, quantised).write()


@dataclass(frozen=True, slots=True)
class _Dimensions:
    """Shapes and sizes that differ by call, as tensors, computed once for all layers."""

    queries: str
    """Of queries by branch: (key_value_heads, group, branches, tokens, head_width)."""
    keys: str
    """Of new keys and values by branch: (key_value_heads, 1, branches, tokens, head_width)."""
    scores: str
    """Of all branches' scores together: (key_value_heads, 1, 1, group x branches x tokens, own + tokens)."""
    scores_by_branch: str
    """(key_value_heads, group, branches, tokens, own + tokens)."""
    parts: str
    """Lengths of the two parts of the past: (prefix, own + tokens)."""


@dataclass(frozen=True, slots=True)
class _Looking:
    """The rows that look at others in a layer.

    Attributes:
        rows: which of them, of branches x tokens; all where None.
        positions: of each in its sequence.
        bias: as the network's.
    """

    rows: str | None
    positions: str
    bias: str


class _Writer:
    def __init__(self, shape: Shape, weights: Weights, quantised: bool) -> None:
        self._shape, self._weights, self._graph = shape, weights, Graph()
        self._quantised = quantised
        self._group = shape.heads // shape.key_value_heads

    def write(self) -> onnx.ModelProto:
        graph, shape = self._graph, self._shape
        graph.input("tokens", np.int64, ("branches", "tokens"))
        graph.input("positions", np.int64, (1, "rows"))
        graph.input("bias", np.float32, ("branches or 1", "tokens", "own + tokens"))
        graph.input("wanted", np.int64, ("logits",))
        for layer in range(shape.layers):
            for kind in ("key", "value"):
                heads, width = shape.key_value_heads, shape.head_width
                graph.input(f"prefix_{kind}_{layer}", np.float32, (heads, 1, 1, "prefix", width))
                graph.input(f"own_{kind}_{layer}", np.float32, (heads, 1, "branches", "own", width))
        dimensions, rotation = self._dimensions(), self._rotation()
        table = self._weights["embed_tokens.weight"]
        residual, added = self._embed(table), ""
        looking = _Looking(None, "positions", "bias")
        for layer in range(shape.layers):
            normed, residual = self._norm(f"layers.{layer}.input_layernorm", residual, added)
            if layer == shape.layers - 1:
                looking, residual = self._wanted(), graph.call("Gather", residual, "wanted")
            added = self._attention(layer, normed, looking, rotation, dimensions)
            normed, residual = self._norm(f"layers.{layer}.post_attention_layernorm", residual, added)
            added = self._feed_forward(layer, normed)
        normed, _ = self._norm("norm", residual, added)
        logits = self._linear(normed, table, self._largest_normed("norm"))
        graph.output(logits, "logits", np.float32, ("logits", shape.vocabulary))
        return graph.model("llama")

    def _dimensions(self) -> _Dimensions:
        graph, shape, group = self._graph, self._shape, self._group
        heads, width = shape.key_value_heads, shape.head_width
        prefix = self._size("prefix_key_0", 3)
        branches, total = self._size("tokens", 0), self._size("bias", 2)
        rest = graph.integers(-1)
        return _Dimensions(
            queries=self._join(graph.integers(heads, group), branches, graph.integers(-1, width)),
            keys=self._join(graph.integers(heads, 1), branches, graph.integers(-1, width)),
            scores=self._join(graph.integers(heads, 1, 1, -1), total),
            scores_by_branch=self._join(graph.integers(heads, group), branches, rest, total),
            parts=self._join(prefix, total),
        )

    def _wanted(self) -> _Looking:
        """The rows whose logits are wanted."""
        graph = self._graph
        of_each = graph.call("Div", graph.call("Shape", "wanted"), self._size("tokens", 0))
        ends, axes = graph.integers(np.iinfo(np.int64).max), graph.integers(1)
        bias = graph.call("Slice", "bias", graph.call("Neg", of_each), ends, axes)
        return _Looking("wanted", graph.call("Gather", "positions", "wanted", axis=1), bias)

    def _size(self, tensor: str, axis: int) -> str:
        shape = self._graph.call("Shape", tensor)
        return self._graph.call("Slice", shape, self._graph.integers(axis), self._graph.integers(axis + 1))

    def _join(self, *vectors: str) -> str:
        return self._graph.call("Concat", *vectors, axis=0)

    def _rotation(self) -> tuple[str, str]:
        """Cosine and sine of every position, (context, head_width / 2)."""
        width = self._shape.head_width
        frequencies = self._shape.rope_theta ** -(np.arange(0, width, 2, dtype=np.float32) / width)
        angles = np.arange(self._shape.context, dtype=np.float32)[:, None] * frequencies
        cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        return self._graph.constant(cosine), self._graph.constant(sine)

    def _embed(self, table: NDArray[np.float32]) -> str:
        """Hidden states of the tokens, (branches x tokens, width)."""
        graph = self._graph
        tokens = graph.call("Reshape", "tokens", graph.integers(-1))
        if not self._quantised:
            return graph.call("Gather", graph.constant(table), tokens)
        rounded, scales = quantise(table)
        integers = graph.call("Cast", graph.call("Gather", graph.constant(rounded), tokens), to=onnx.TensorProto.FLOAT)
        return graph.call("Mul", integers, graph.call("Gather", graph.constant(scales[:, None]), tokens))

    def _norm(self, name: str, residual: str, added: str) -> tuple[str, str]:
        """Add to the residual stream (nothing before the first layer), and normalise: (normed, residual)."""
        graph = self._graph
        weight = graph.constant(self._weights[f"{name}.weight"])
        epsilon = self._shape.norm_epsilon
        if not added:
            return graph.call("SimplifiedLayerNormalization", residual, weight, axis=-1, epsilon=epsilon), residual
        normed, _, _, residual = graph.call_many(
            4, "SkipSimplifiedLayerNormalization", residual, added, weight, domain=MICROSOFT, epsilon=epsilon
        )
        return normed, residual

    def _attention(
        self, layer: int, normed: str, looking: _Looking, rotation: tuple[str, str], dimensions: _Dimensions
    ) -> str:
        graph, shape = self._graph, self._shape
        query, key, value = self._project(layer, normed, looking, rotation)
        key = self._remember(f"key_{layer}", key, dimensions)
        value = self._remember(f"value_{layer}", value, dimensions)
        shares = self._shares(layer, query, key, looking.bias, dimensions)
        of_prefix, of_own = graph.call_many(2, "Split", shares, dimensions.parts, axis=-1)
        from_prefix = graph.call("MatMul", of_prefix, f"prefix_value_{layer}")
        of_own = graph.call("Reshape", of_own, dimensions.scores_by_branch)
        from_own = graph.call("MatMul", of_own, value)
        together = graph.integers(shape.heads, -1, shape.head_width)
        mixed = graph.call(
            "Add", graph.call("Reshape", from_prefix, together), graph.call("Reshape", from_own, together)
        )
        mixed = graph.call("Transpose", mixed, perm=[1, 0, 2])
        mixed = graph.call("Reshape", mixed, graph.integers(-1, shape.width))
        weight = self._weights[f"layers.{layer}.self_attn.o_proj.weight"]
        return self._linear(mixed, weight, self._largest_value(layer))

    def _project(self, layer: int, normed: str, looking: _Looking, rotation: tuple[str, str]) -> tuple[str, ...]:
        """Queries, keys and values, (1, heads, rows, head_width) each; queries of the rows that look alone."""
        graph, shape = self._graph, self._shape
        queries, keys, values = (self._weights[f"layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv")
        queries = queries * np.float32(shape.head_width**-0.5)  # attention's scale, for free
        heads, shared = shape.heads, shape.key_value_heads
        largest = self._largest_normed(f"layers.{layer}.input_layernorm")
        if looking.rows is None:
            projected = self._linear(normed, np.concatenate((queries, keys, values)), largest)
            by_head = self._by_head(projected, heads + 2 * shared)
            turned, value = graph.call_many(2, "Split", by_head, graph.integers(heads + shared, shared), axis=1)
            turned = self._turned(turned, looking.positions, rotation)
            return *graph.call_many(2, "Split", turned, graph.integers(heads, shared), axis=1), value
        query = self._by_head(self._linear(graph.call("Gather", normed, looking.rows), queries, largest), heads)
        query = self._turned(query, looking.positions, rotation)
        by_head = self._by_head(self._linear(normed, np.concatenate((keys, values)), largest), 2 * shared)
        key, value = graph.call_many(2, "Split", by_head, graph.integers(shared, shared), axis=1)
        return query, self._turned(key, "positions", rotation), value

    def _by_head(self, projected: str, heads: int) -> str:
        """Rows of several heads each, as (1, heads, rows, head_width)."""
        graph = self._graph
        by_head = graph.call("Reshape", projected, graph.integers(1, -1, heads, self._shape.head_width))
        return graph.call("Transpose", by_head, perm=[0, 2, 1, 3])

    def _turned(self, by_head: str, positions: str, rotation: tuple[str, str]) -> str:
        return self._graph.call("RotaryEmbedding", by_head, positions, *rotation, domain=MICROSOFT)

    def _remember(self, name: str, new: str, dimensions: _Dimensions) -> str:
        """The branches' own keys or values with the new ones, which the network gives out too."""
        graph, shape = self._graph, self._shape
        by_branch = graph.call("Reshape", new, dimensions.keys)
        whole = graph.call("Concat", f"own_{name}", by_branch, axis=3)
        sizes = (shape.key_value_heads, 1, "branches", "own + tokens", shape.head_width)
        return graph.output(whole, name, np.float32, sizes)

    def _shares(self, layer: int, query: str, key: str, bias: str, dimensions: _Dimensions) -> str:
        """How much each query takes of each token, prefix first."""
        graph, shape = self._graph, self._shape
        every = graph.call("Reshape", query, graph.integers(shape.key_value_heads, 1, 1, -1, shape.head_width))
        to_prefix = graph.call("FusedMatMul", every, f"prefix_key_{layer}", domain=MICROSOFT, transB=1)
        by_branch = graph.call("Reshape", query, dimensions.queries)
        to_own = graph.call("FusedMatMul", by_branch, key, domain=MICROSOFT, transB=1)
        to_own = graph.call("Reshape", graph.call("Add", to_own, bias), dimensions.scores)
        return graph.call("Softmax", graph.call("Concat", to_prefix, to_own, axis=-1), axis=-1)

    def _feed_forward(self, layer: int, normed: str) -> str:
        graph, width = self._graph, self._shape.feed_forward
        gate, up, down = (self._weights[f"layers.{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        largest = self._largest_normed(f"layers.{layer}.post_attention_layernorm")
        both = self._linear(normed, np.concatenate((gate, up)), largest)
        gated, passed = graph.call_many(2, "Split", both, graph.integers(width, width), axis=-1)
        gated = graph.call("QuickGelu", gated, domain=MICROSOFT, alpha=1.0)  # x sigmoid(x): SiLU
        return self._linear(graph.call("Mul", gated, passed), down)

    def _largest_normed(self, name: str) -> float:
        """What no element of a normalised row exceeds: rows have a mean square of 1, before they are weighed."""
        return self._shape.width**0.5 * float(np.abs(self._weights[f"{name}.weight"]).max())

    def _largest_value(self, layer: int) -> float:
        """What no element of a layer's values exceeds, nor of any mean of them."""
        integers, scales = quantise(self._weights[f"layers.{layer}.self_attn.v_proj.weight"])
        weighed = integers * self._weights[f"layers.{layer}.input_layernorm.weight"]
        return self._shape.width**0.5 * float((np.linalg.norm(weighed, axis=1) * scales).max())

    def _linear(self, rows: str, weight: NDArray[np.float32], largest: float | None = None) -> str:
        """Rows (count, inputs) times a weight (outputs, inputs).

        Args:
            rows: their name.
            weight: its elements.
            largest: what no input exceeds in magnitude; None where that is not known.
        """
        if not self._quantised:
            return self._graph.call("FusedMatMul", rows, self._graph.constant(weight), domain=MICROSOFT, transB=1)
        integers, scales = quantise(weight)
        if largest is not None:
            return self._product(rows, integers, scales, largest)
        by_row = self._graph.call("ReduceMax", self._graph.call("Abs", rows), axes=[-1], keepdims=1)
        product = self._product(self._graph.call("Div", rows, by_row), integers, scales, 1.0)
        return self._graph.call("Mul", product, by_row)

    def _product(self, rows: str, weight: NDArray[np.int8], scales: NDArray[np.float32], largest: float) -> str:
        """Rows (count, inputs) times a quantised weight (outputs, inputs); no input exceeds `largest`."""
        graph = self._graph
        zero_point = graph.constant(np.array(_ZERO_POINT, dtype=np.uint8))
        coarse, fine = (graph.number(largest / _LARGEST_INPUT / parts) for parts in (1, 2 * _LARGEST_INPUT))
        first = graph.call("QuantizeLinear", rows, coarse, zero_point)
        left = graph.call("Sub", rows, graph.call("DequantizeLinear", first, coarse, zero_point))
        second = graph.call("QuantizeLinear", left, fine, zero_point)
        # A product each: what a stack of both would give had to be split again, which costs a prompt more time.
        by_input, by_output = graph.constant(weight.T), graph.constant(scales)
        products = (
            graph.call("MatMulIntegerToFloat", integers, by_input, step, by_output, zero_point, domain=MICROSOFT)
            for integers, step in ((first, coarse), (second, fine))
        )
        return graph.call("Add", *products)


def quantise(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight (outputs, inputs) as integers and a scale for each output: integers x scale is about the weight."""
    largest: NDArray[np.float32] = np.abs(weight).max(axis=1)
    scales = np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(_LARGEST_WEIGHT)
    return np.round(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)
