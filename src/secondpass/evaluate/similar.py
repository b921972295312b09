"""The nearest-neighbour baseline: the labels of the training functions that look most like a function.

A function is a bag of its lines, each without names, numbers and constants, and of pairs of lines that follow each
other. Bags are weighted as in text retrieval (the logarithm of the count, times the inverse document frequency),
hashed into a vector of fixed width, and compared by their cosine. No model and no compiler is needed: what a learnt
model adds must show beside it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from secondpass.llvm.passes import Words
from secondpass.tuner.labels import Label

_WIDTH = 4096
_CHUNK = 4096
"""Training functions compared at once."""
_WITHOUT = re.compile(r"[%@](?:\"[^\"]*\"|[\w.$-]+)|c?\"[^\"]*\"|(?<![\w.])-?\d[\w.+-]*")

Vectors = NDArray[np.float32]
Counts = NDArray[np.uint16]


class Neighbours:
    """Training functions to look among.

    Args:
        texts: their normalised IR.
        labels: of each, in the same order.
    """

    def __init__(self, texts: Iterable[str], labels: Sequence[Label]) -> None:
        self._labels = labels
        counts = _counts(texts)
        documents = (counts > 0).sum(axis=0)
        self._rarity = np.log((1 + len(counts)) / (1 + documents)).astype(np.float32)
        # Half precision and in chunks: a hundred thousand functions fit a gigabyte.
        self._vectors = np.empty(counts.shape, dtype=np.float16)
        for start in range(0, len(counts), _CHUNK):
            self._vectors[start : start + _CHUNK] = self._weighted(counts[start : start + _CHUNK])

    def lists(self, texts: Sequence[str], most: int) -> list[list[Words]]:
        """For each function the best lists of its nearest neighbours, the nearest first, no list twice.

        Args:
            texts: the functions' normalised IR.
            most: lists a function.
        """
        queries = self._weighted(_counts(texts))
        looked_at = min(len(self._labels), 8 * most)
        return [self._distinct(order, most) for order in self._nearest(queries, looked_at)]

    def _nearest(self, queries: Vectors, most: int) -> NDArray[np.int64]:
        """The indices of the nearest training functions, (queries, most), the nearest first."""
        near = np.full((len(queries), 0), 0, dtype=np.float32)
        index = np.full((len(queries), 0), 0, dtype=np.int64)
        for start in range(0, len(self._vectors), _CHUNK):
            chunk = self._vectors[start : start + _CHUNK].astype(np.float32)
            near = np.concatenate((near, queries @ chunk.T), axis=1)
            places = np.broadcast_to(np.arange(start, start + len(chunk)), (len(queries), len(chunk)))
            index = np.concatenate((index, places), axis=1)
            kept = np.argsort(-near, axis=1, kind="stable")[:, :most]
            near, index = np.take_along_axis(near, kept, 1), np.take_along_axis(index, kept, 1)
        return index

    def _distinct(self, order: NDArray[np.int64], most: int) -> list[Words]:
        places: list[int] = order.tolist()
        return list(dict.fromkeys(self._labels[it].best.passes for it in places))[:most]

    def _weighted(self, counts: Counts) -> Vectors:
        weighted = np.log1p(counts.astype(np.float32)) * self._rarity
        length = np.linalg.norm(weighted, axis=1, keepdims=True)
        return (weighted / np.maximum(length, 1e-9)).astype(np.float32)


def _counts(texts: Iterable[str]) -> Counts:
    """How often each hashed line and pair of lines occurs in each text, (texts, width)."""
    rows: list[Counts] = []
    for text in texts:
        lines = [_WITHOUT.sub("#", line) for line in text.splitlines()]
        parts = lines + [f"{one}\n{other}" for one, other in pairwise(lines)]
        places = np.array([zlib.crc32(part.encode()) % _WIDTH for part in parts], dtype=np.int64)
        rows.append(np.bincount(places, minlength=_WIDTH).astype(np.uint16))
    return np.array(rows, dtype=np.uint16).reshape(-1, _WIDTH)
