"""An engine over a checkpoint of `transformers`, run by torch on the processor or a GPU.

    engine = TransformersEngine.load(Path("build/model/checkpoint-2000"))

What it reads once and how it writes answers is the same as in the engine in the box; this module is the network
beneath it: one step of the model on a KV cache whose prefix all branches of a batch share.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secondpass.engines.grammar import LONGEST_LIST, Grammar
from secondpass.engines.onnx import OnnxEngine
from secondpass.engines.sampling import Logits
from secondpass.model import llama
from secondpass.model.manifest import TOKENIZER, Manifest
from secondpass.model.run import read_facts
from secondpass.model.tokenizer import Tokenizer

_cache_utils: Any = llama.transformers.cache_utils
KeysValues = tuple[Tensor, Tensor]
"""Of one layer, (branches, key_value_heads, length, head_width) each."""


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Keys and values of the same number of tokens in each of several branches.

    Attributes:
        layers: of each layer.
        length: tokens.
    """

    layers: tuple[KeysValues, ...]
    length: int

    def select(self, rows: Sequence[int]) -> Cache:
        """The cache of these branches, in this order."""
        return Cache(tuple((keys[list(rows)], values[list(rows)]) for keys, values in self.layers), self.length)

    def joined(self, after: Cache) -> Cache:
        """The cache of what this one holds, then the other; both of equally many branches."""
        pairs = zip(self.layers, after.layers, strict=True)
        layers = tuple((_joined(one[0], other[0]), _joined(one[1], other[1])) for one, other in pairs)
        return Cache(layers, self.length + after.length)


class _Layer(_cache_utils.DynamicLayer):
    """A layer's cache during one step: the prefix of all branches, and what each has of its own."""

    def __init__(self, prefix: KeysValues, own: KeysValues) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._prefix, self.own = prefix, own

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> KeysValues:
        """Take in new keys and values; all of them, for the layer to attend to."""
        self.own = _joined(self.own[0], key_states), _joined(self.own[1], value_states)
        branches = len(key_states)
        keys, values = (
            _joined(before.expand(branches, -1, -1, -1), own)
            for before, own in zip(self._prefix, self.own, strict=True)
        )
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens it holds."""
        return self._prefix[0].shape[2] + self.own[0].shape[2]


class Network:
    """A model, and how to ask it for a step; see `onnx_network.Network`."""

    def __init__(self, model: Any, manifest: Manifest) -> None:
        """Take a model as it is, on its device."""
        self.manifest = manifest
        self._model = model
        # The name changed in transformers 5.
        names = inspect.signature(llama.transformers.LlamaForCausalLM.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def empty(self, branches: int) -> Cache:
        """The cache of no tokens."""
        shape = branches, self.manifest.key_value_heads, 0, self.manifest.head_width
        nothing = torch.zeros(shape, dtype=self._model.dtype, device=self._model.device)
        return Cache(((nothing, nothing),) * self.manifest.layers, 0)

    @torch.inference_mode()
    def step(
        self, tokens: NDArray[np.int64], prefix: Cache, own: Cache, *, last: int | None = None
    ) -> tuple[Logits, Cache]:
        """Read tokens after what the caches hold.

        Args:
            tokens: ids, (branches, tokens).
            prefix: what all branches have read before, one branch.
            own: what each branch has read after that.
            last: after how many of each branch's last tokens logits are wanted.

        Returns:
            Logits, (branches, last, vocabulary), and `own` with these tokens in it.
        """
        before, count = prefix.length + own.length, tokens.shape[1]
        positions = torch.arange(before, before + count)[None]
        logits, layers = self._step(tokens, positions, prefix, own, last=last or count)
        return logits, Cache(layers, own.length + count)

    @torch.inference_mode()
    def read_one(self, tokens: NDArray[np.int64], prefix: Cache, owns: Sequence[Cache]) -> tuple[Logits, list[Cache]]:
        """Read one token in each of several branches that may have read differently many.

        Args:
            tokens: ids, (branches,).
            prefix: what all branches have read before, one branch.
            owns: what each branch has read after that.

        Returns:
            Logits, (branches, vocabulary), and each of `owns` with its token in it.
        """
        lengths = torch.tensor([own.length for own in owns])
        longest = int(lengths.max())
        # Shorter caches are padded at their ends; nobody looks at the padding.
        own = Cache(
            tuple(_stacked(layers, longest) for layers in zip(*(it.layers for it in owns), strict=True)), longest
        )
        places = torch.arange(longest)
        seen = torch.ones(len(owns), prefix.length + longest + 1, dtype=torch.bool)
        seen[:, prefix.length : -1] = places < lengths[:, None]
        positions = (prefix.length + lengths)[:, None]
        logits, layers = self._step(tokens[:, None], positions, prefix, own, last=1, seen=seen[:, None, None])
        found = [
            Cache(
                tuple((_compact(keys, row, it.length), _compact(values, row, it.length)) for keys, values in layers),
                it.length + 1,
            )
            for row, it in enumerate(owns)
        ]
        return logits[:, 0], found

    def _step(
        self,
        tokens: NDArray[np.int64],
        positions: Tensor,
        prefix: Cache,
        own: Cache,
        last: int,
        seen: Tensor | None = None,
    ) -> tuple[Logits, tuple[KeysValues, ...]]:
        """Logits, and the layers of `own` with the tokens in them; these see all before them, or what is `seen`."""
        device = self._model.device
        layers = [_Layer(*pair) for pair in zip(prefix.layers, own.layers, strict=True)]
        found = self._model(
            input_ids=torch.from_numpy(tokens).to(device),  # pyright: ignore[reportUnknownMemberType]
            position_ids=positions.to(device),
            attention_mask=None if seen is None else seen.to(device),
            use_cache=True,
            logits_to_keep=last,
            **{self._cache_name: _cache_utils.Cache(layers=layers)},
        )
        return found.logits.float().cpu().numpy(), tuple(it.own for it in layers)


class TransformersEngine(OnnxEngine):
    """A checkpoint, loaded; or a model that is being trained.

    Answers are the same whatever else is in their batch up to the rounding of the matrix products.
    """

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        directory: Path,
        *,
        words: Iterable[str] | None = None,
        longest_list: int = LONGEST_LIST,
        device: str | None = None,
        threads: int | None = None,
    ) -> Self:
        """Load a checkpoint.

        Args:
            directory: a checkpoint of `model.train`.
            words: the elements a list may hold; None for all the model knows.
            longest_list: elements of a list at most.
            device: torch's name of it; None for the first GPU, in bfloat16, or else the processor.
            threads: of the whole process, on a processor; None for as many as torch takes.

        Raises:
            ModelError: the directory lacks a file, is damaged, or is of another version.
            EngineError: the model does not know one of the words, or there is none.
        """
        facts, model = read_facts(directory), cast("Any", llama.load(directory))
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if threads is not None:
            torch.set_num_threads(threads)
        model.eval().to(device)
        if device != "cpu":
            model.bfloat16()
        return cls.over(model, facts, Tokenizer.load(directory / TOKENIZER), words=words, longest_list=longest_list)

    @classmethod
    def over(
        cls,
        model: Any,
        facts: Manifest,
        tokenizer: Tokenizer,
        *,
        words: Iterable[str] | None = None,
        longest_list: int = LONGEST_LIST,
    ) -> Self:
        """An engine over a model that is in memory, such as one that is being trained."""
        texts = {tokenizer.decode([token]): token for token in range(tokenizer.size)}
        grammar = Grammar(texts, facts.words if words is None else words, longest_list, tokenizer.code_ids())
        return cls(cast("Any", Network(model, facts)), tokenizer, grammar)


def _joined(one: Tensor, other: Tensor) -> Tensor:
    """Both, one after the other; an empty one is left out, whatever its kind of number."""
    return torch.cat((one, other), dim=2) if one.shape[2] and other.shape[2] else one if one.shape[2] else other


def _stacked(layers: Sequence[KeysValues], length: int) -> KeysValues:
    """One layer of several one-branch caches as that of one batch, padded to a length."""
    keys, values = (
        torch.cat([torch.nn.functional.pad(it, (0, 0, 0, length - it.shape[2])) for it in parts])
        for parts in zip(*layers, strict=True)
    )
    return keys, values


def _compact(batch: Tensor, row: int, length: int) -> Tensor:
    """What one branch of a batch holds: its first tokens and, behind the padding, its last."""
    return torch.cat((batch[row : row + 1, :, :length], batch[row : row + 1, :, -1:]), dim=2)
