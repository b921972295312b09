"""Labels on disk: for every function the best list found, and how it was found.

A label file is parquet. While a tuner runs, what it finds goes into small parts in a folder beside the
file (`LABELS.parts/`), each complete or absent, every few seconds; at the end the parts are merged into
the file. A lock in that folder, held by the kernel for the process, keeps a second tuner out and never
outlives its owner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from secondpass import parquet
from secondpass.corpus.store import Corpus, Entry
from secondpass.errors import CorpusError
from secondpass.files import lock, write_json
from secondpass.ir import NORMAL_FORM_VERSION
from secondpass.llvm.library import load
from secondpass.llvm.vocabulary import VOCABULARY_VERSION
from secondpass.prompt import Objective
from secondpass.tuner.search import Found

_BROADCAST = "broadcast"
"""What a label file says beside its versions."""


@dataclass(frozen=True, slots=True)
class Label:
    """What the tuner knows of a function.

    Attributes:
        hash: the function (`ir.digest`).
        oz: the objective's value at -Oz.
        found: the best list and the next best, distinct in effect; never empty.
        compiles: spent on it.
        broadcasts: the last round of other functions' winners it has been through, counted over all runs.
    """

    hash: str
    oz: int
    found: tuple[Found, ...]
    compiles: int
    broadcasts: int = 0

    @property
    def best(self) -> Found:
        """The best list."""
        return self.found[0]

    @property
    def gain(self) -> int:
        """How much smaller than -Oz."""
        return self.oz - self.best.value


def versions(objective: Objective) -> dict[str, Any]:
    """What labels depend on besides the function."""
    return {
        "objective": str(objective),
        "llvm": load().version,
        "vocabulary": VOCABULARY_VERSION,
        "normal_form": NORMAL_FORM_VERSION,
    }


def objective_of(path: Path) -> Objective:
    """What the labels of a file are for.

    Raises:
        CorpusError: it cannot be read, or is no label file.
    """
    mend = "it is no label file, or a damaged one: delete it or name another"
    made = parquet.versions(parquet.open_file(path, mend))
    if made.get("objective") not in list(Objective):
        raise CorpusError(f"{path}: does not say which objective its labels are for; {mend}")
    return Objective(made["objective"])


def read_labels(path: Path, objective: Objective, corpus: Corpus | None = None) -> dict[str, Label]:
    """The labels of a file, by hash.

    Args:
        path: the file.
        objective: what they are for.
        corpus: leaves out what is not `true_of` its function there.

    Raises:
        CorpusError: it cannot be read, or was made for another objective, LLVM, vocabulary or normal form.
    """
    table = parquet.read(path, "it is no label file, or a damaged one: delete it or name another")
    parquet.require(
        path,
        table,
        versions(objective),
        "such labels say nothing here: name another file, or take the version they were made with",
    )
    names = ("hash", "oz", "best", "passes", "others", "compiles", "broadcasts")
    labels: dict[str, Label] = {}
    for key, oz, best, passes, others, compiles, broadcasts in zip(*(table[name].to_pylist() for name in names)):
        next_best = (Found(tuple(it["passes"].split()), it["value"]) for it in others)
        label = Label(key, oz, (Found(tuple(passes.split()), best), *next_best), compiles, broadcasts)
        if corpus is None or key not in corpus.entries or true_of(label, corpus.entries[key], objective):
            labels[key] = label
    return labels


def true_of(label: Label, entry: Entry, objective: Objective) -> bool:
    """Whether a label was made of this function, not of another one with the same text: what is in a constant and what
    is known of a callee are no part of the text, and tell by what -Oz makes of the function.
    """
    return label.oz == (entry.oz if objective is Objective.INSTRUCTIONS else entry.oz_bytes)


def broadcast_of(path: Path) -> str:
    """What a label file says of its broadcasts: see `LabelStore.broadcast`.

    Raises:
        CorpusError: it cannot be read.
    """
    return parquet.versions(parquet.open_file(path, "delete it or name another")).get(_BROADCAST, "")


def write_labels(path: Path, labels: Iterable[Label], objective: Objective, broadcast: str = "") -> None:
    """Write a label file; it appears complete or not at all.

    Args:
        path: the file.
        labels: of different functions.
        objective: what they are for.
        broadcast: see `LabelStore.broadcast`.
    """
    pa = parquet.arrow()
    rows = sorted(labels, key=lambda label: label.hash)
    others = pa.list_(pa.struct([("passes", pa.string()), ("value", pa.int32())]))
    columns = {
        "hash": (pa.string(), [it.hash for it in rows]),
        "oz": (pa.int32(), [it.oz for it in rows]),
        "best": (pa.int32(), [it.best.value for it in rows]),
        "passes": (pa.string(), [" ".join(it.best.passes) for it in rows]),
        "others": (others, [[{"passes": " ".join(o.passes), "value": o.value} for o in it.found[1:]] for it in rows]),
        "compiles": (pa.int32(), [it.compiles for it in rows]),
        "broadcasts": (pa.int16(), [it.broadcasts for it in rows]),
    }
    parquet.write(path, columns, versions(objective) | {_BROADCAST: broadcast})


class LabelStore:
    """The labels of a run, read at the start and added to. One process at a time; close it, or use `with`.

    Args:
        path: the label file.
        objective: what the labels are for.

    Raises:
        InputError: another tuner has it open, or it cannot be written.
        CorpusError: it is unreadable, or was made with other versions.
    """

    def __init__(self, path: Path, objective: Objective) -> None:
        path = path.resolve()  # of a link and its target one tuner keeps another out
        self._path, self._objective = path, objective
        self._parts = path.with_name(path.name + ".parts")
        busy = f"{path}: another tuner is writing these labels; wait for it or name another --out"
        self._lock = lock(self._parts / "lock", busy)
        self.labels: dict[str, Label] = read_labels(path, objective) if path.exists() else {}
        """All of them, by hash."""
        self.broadcast = broadcast_of(path) if path.exists() else ""
        """What says of which functions the winners have been tried on all; empty where that is not known."""
        self._numbers = sorted(int(part.stem) for part in self._parts.glob("*.parquet"))
        for number in self._numbers:
            self.labels |= read_labels(self._part(number), objective)
        self._waiting: list[Label] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        self._lock.close()

    def add(self, label: Label) -> None:
        """Take a label in; it is safe on disk after the next `flush`."""
        self.labels[label.hash] = label
        self._waiting.append(label)

    def flush(self) -> None:
        """Put on disk what was added."""
        if self._waiting:
            number = max(self._numbers, default=-1) + 1
            write_labels(self._part(number), self._waiting, self._objective)
            self._numbers.append(number)
            self._waiting = []

    def merge(self) -> None:
        """Make the label file of everything, and drop the parts and what was noted."""
        self.flush()
        write_labels(self._path, self.labels.values(), self._objective, self.broadcast)
        for number in self._numbers:  # the oldest first: what a kill leaves must be the newest
            self._part(number).unlink()
        self._numbers = []
        self.forget()

    def note(self, name: str, value: object) -> None:
        """Keep a small fact of this run beside the parts."""
        write_json(self._parts / f"{name}.json", value)

    def noted(self, name: str) -> Any:
        """A fact kept by `note`; None where there is none."""
        path = self._parts / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def forget(self) -> None:
        """Drop all that was noted."""
        for path in self._parts.glob("*.json"):
            path.unlink()

    def _part(self, number: int) -> Path:
        return self._parts / f"{number:06}.parquet"
