"""The network in an onnxruntime session, one step at a time, and the KV cache it works on.

A cache is a value: a step takes caches and gives a new one, so sequences share what they have in
common and none can spoil another's. What all branches of a batch have read is kept once, as the
prefix; each has a cache of its own for what it read after that. `model.export` says how the network
attends to the two. The module knows ids and logits; it knows nothing of text and sampling.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secondpass.engines.sampling import Logits
from secondpass.engines.subnormals import subnormals_are_zero
from secondpass.errors import ModelError
from secondpass.model.manifest import Manifest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it tells its makers of every session, by a thread of its own
onnxruntime: Any = import_module("onnxruntime")


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Keys and values of the same number of tokens in each of several branches.

    Attributes:
        values: keys and values of each layer in turn, (key_value_heads, 1, branches, length, head_width).
        length: tokens.
    """

    values: tuple[Any, ...]
    length: int

    def select(self, rows: Sequence[int]) -> Cache:
        """The cache of these branches, in this order."""
        return Cache(tuple(_value(value.numpy()[:, :, list(rows)]) for value in self.values), self.length)

    def joined(self, after: Cache) -> Cache:
        """The cache of what this one holds, then the other; both of equally many branches."""
        if not self.length:
            return after
        pairs = zip(self.values, after.values, strict=True)
        values = tuple(_value(np.concatenate((one.numpy(), other.numpy()), axis=3)) for one, other in pairs)
        return Cache(values, self.length + after.length)


class Network:
    """The session, and how to ask it for a step."""

    def __init__(self, path: Path, manifest: Manifest, threads: int) -> None:
        """Load the network.

        Raises:
            ModelError: onnxruntime cannot load it.
        """
        self.manifest = manifest
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin for work slow down a compiler at work beside them far more than they gain.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # For threads of the session's own. A process's first session sets it for the thread that makes it, too.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        try:
            with subnormals_are_zero():
                self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ModelError(f"{path} is damaged ({_first_line(error)}); export the model again") from error
        self._caches = [f"{kind}_{layer}" for layer in range(manifest.layers) for kind in ("key", "value")]
        self._outputs = ["logits", *self._caches]

    def empty(self, branches: int) -> Cache:
        """The cache of no tokens."""
        shape = (self.manifest.key_value_heads, 1, branches, 0, self.manifest.head_width)
        return Cache((_value(np.zeros(shape, dtype=np.float32)),) * len(self._caches), 0)

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
        branches, count = tokens.shape
        offsets = np.arange(count, dtype=np.int64) + (prefix.length + own.length)
        positions = np.repeat(offsets[None], branches, axis=0)
        return self._step(tokens, positions, _causal(count, own.length)[None], prefix, own, last=last or count)

    def read_one(self, tokens: NDArray[np.int64], prefix: Cache, owns: Sequence[Cache]) -> tuple[Logits, list[Cache]]:
        """Read one token in each of several branches that may have read differently many.

        Args:
            tokens: ids, (branches,).
            prefix: what all branches have read before, one branch.
            owns: what each branch has read after that.

        Returns:
            Logits, (branches, vocabulary), and each of `owns` with its token in it.
        """
        lengths = np.array([own.length for own in owns])
        longest = int(lengths.max())
        # Shorter caches are padded at their ends; nobody looks at the padding.
        padding = np.arange(longest) >= lengths[:, None]
        bias = np.where(np.pad(padding, ((0, 0), (0, 1))), np.float32(-np.inf), np.float32(0))[:, None]
        values = zip(*(own.values for own in owns), strict=True)
        own = Cache(tuple(_value(_stacked([it.numpy() for it in rows], longest)) for rows in values), longest)
        positions = (prefix.length + lengths)[:, None]
        logits, read = self._step(tokens[:, None], positions, bias, prefix, own, last=1)
        arrays = [value.numpy() for value in read.values]
        found = [
            Cache(tuple(_value(_compact(array, row, int(length))) for array in arrays), int(length) + 1)
            for row, length in enumerate(lengths)
        ]
        return logits[:, 0], found

    def _step(
        self,
        tokens: NDArray[np.int64],
        positions: NDArray[np.int64],
        bias: NDArray[np.float32],
        prefix: Cache,
        own: Cache,
        last: int,
    ) -> tuple[Logits, Cache]:
        branches, count = tokens.shape
        offsets = np.arange(count, dtype=np.int64)
        wanted = np.arange(branches, dtype=np.int64)[:, None] * count + offsets[count - last :]
        inputs = {
            "tokens": _value(tokens),
            "positions": _value(positions.reshape(1, -1)),
            "bias": _value(bias),
            "wanted": _value(wanted.reshape(-1)),
        }
        for kind, cache in (("prefix", prefix), ("own", own)):
            inputs |= {f"{kind}_{name}": value for name, value in zip(self._caches, cache.values, strict=True)}
        with subnormals_are_zero():
            logits, *values = self._session.run_with_ort_values(self._outputs, inputs)
        found: Logits = logits.numpy().reshape(branches, last, -1)
        return found, Cache(tuple(values), own.length + count)


def _stacked(arrays: Sequence[NDArray[np.float32]], length: int) -> NDArray[np.float32]:
    """One-branch keys or values as those of one batch, (heads, 1, branches, length, width)."""
    heads, one, _, _, width = arrays[0].shape
    batch = np.zeros((heads, one, len(arrays), length, width), dtype=np.float32)
    for row, array in enumerate(arrays):
        batch[:, :, row, : array.shape[3]] = array[:, :, 0]
    return batch


def _compact(array: NDArray[np.float32], row: int, length: int) -> NDArray[np.float32]:
    """What one branch of a batch holds: its first tokens and, behind the padding, its last."""
    return np.concatenate((array[:, :, row : row + 1, :length], array[:, :, row : row + 1, -1:]), axis=3)


def _causal(count: int, before: int) -> NDArray[np.float32]:
    """What to add to the attention scores of new tokens: minus infinity for those that come later."""
    return np.triu(np.full((count, before + count), -np.inf, dtype=np.float32), before + 1)


def _value(array: NDArray[Any]) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
