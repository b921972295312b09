"""The corpus on disk: a parquet shard a project, and an index over all of them.

    OUT/functions/PROJECT.parquet   every distinct function of a project (`extraction.Record`)
    OUT/index.parquet               the functions that count: deduplicated across projects, with their split
    OUT/splits.json                 the splits that a recipe fixes, by project

A shard is written at once, or not at all. The index is made from the shards in seconds and can be thrown
away. Reading is lazy: the index alone is in memory; bitcode and text come by hash, a row group at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from secondpass import parquet
from secondpass.corpus import SPLITS, Split
from secondpass.corpus.extraction import Record
from secondpass.errors import CorpusError
from secondpass.files import write_json
from secondpass.ir import NORMAL_FORM_VERSION
from secondpass.llvm.library import load

_ROW_GROUP = 128
_CACHED_ROW_GROUPS = 64
_OPEN_FILES = 64
_HELD_OUT_FIRST = {"test": 0, "validation": 1, "train": 2}
_MEND = "delete it and run the corpus command that made it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """A function as the index knows it: everything but its code.

    Attributes:
        hash, group, project, language, source, oz, oz_bytes: as in `Record`.
        characters: length of the normalised text.
        split: of its project.
        row: its place in the project's shard.
    """

    hash: str
    group: str
    project: str
    language: str
    source: int
    oz: int
    oz_bytes: int
    characters: int
    split: str
    row: int


def shard_path(out: Path, project: str) -> Path:
    """Where a project's functions lie."""
    return out / "functions" / f"{project}.parquet"


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Write a project's functions; the file appears complete or not at all."""
    parquet.write(path, _columns(Record, records), _made_with(), _ROW_GROUP)


def _columns(kind: type[Record | Entry], rows: Sequence[Record | Entry]) -> dict[str, tuple[Any, list[Any]]]:
    names = [field.name for field in fields(kind)]
    return {name: (_type(name), [getattr(row, name) for row in rows]) for name in names}


def _type(name: str) -> Any:
    pa = parquet.arrow()
    if name == "bitcode":
        return pa.binary()
    return pa.int32() if name in ("source", "oz", "oz_bytes", "characters", "row") else pa.string()


def _made_with() -> dict[str, Any]:
    return {"normal_form": NORMAL_FORM_VERSION, "llvm": load().version}


def count_functions(path: Path) -> int:
    """How many functions a shard holds.

    Raises:
        CorpusError: it cannot be read.
    """
    return parquet.open_file(path, _MEND).metadata.num_rows


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a shard cannot be used as it is, and whether that is for having been made with another LLVM."""

    error: CorpusError
    of_another_llvm: bool = False


def outdated(out: Path) -> dict[str, Fault]:
    """The projects whose shards are corrupt, or made with another normal form or LLVM: all of them are read."""
    found: dict[str, Fault] = {}
    for path in sorted((out / "functions").glob("*.parquet")):
        try:
            table = parquet.read(path, _MEND)
        except CorpusError as error:
            found[path.stem] = Fault(error)
            continue
        made = parquet.versions(table)
        another = bool(made) and made.get("llvm") != load().version
        try:
            mend = "make this project anew with --again, or name another --out" if another else _MEND
            parquet.require(path, table, _made_with(), mend)
        except CorpusError as error:
            found[path.stem] = Fault(error, another)
    return found


# Splits


def split_of(project: str, fixed: Mapping[str, Split]) -> Split:
    """The split of a project: the recipe's, or else by a hash of its name, a tenth test, a twentieth validation."""
    if project in fixed:
        return fixed[project]
    place = int.from_bytes(hashlib.sha256(project.encode()).digest()[:4], "big") % 20
    return "test" if place < 2 else "validation" if place == 2 else "train"


def fixed_splits(out: Path) -> dict[str, Split]:
    """The splits that recipes have fixed in this corpus.

    Raises:
        CorpusError: `splits.json` is no table of splits.
    """
    path = out / "splits.json"
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return {project: SPLITS[SPLITS.index(split)] for project, split in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise CorpusError(
            f"{path}: cannot be read ({error}); it maps projects to {', '.join(SPLITS)}: mend or delete it"
        ) from error


def fix_splits(out: Path, splits: Mapping[str, str]) -> None:
    """Add to `fixed_splits`."""
    write_json(out / "splits.json", dict(sorted({**fixed_splits(out), **splits}.items())))


# The index


def build_index(out: Path) -> int:
    """Deduplicate all shards into `index.parquet`; how many functions count.

    A near-duplicate group of several projects belongs to one of them: held-out splits come first, then
    the project whose name sorts first. So nothing held out has a sibling in training.

    Raises:
        CorpusError: a shard is corrupt, or made with another normal form or LLVM.
    """
    fixed = fixed_splits(out)
    paths = sorted((out / "functions").glob("*.parquet"))
    paths.sort(key=lambda path: (_HELD_OUT_FIRST[split_of(path.stem, fixed)], path.stem))
    groups: set[str] = set()
    kept: list[Entry] = []
    for path in paths:
        split = split_of(path.stem, fixed)
        for entry in _entries(path, split):
            if entry.group not in groups:
                groups.add(entry.group)
                kept.append(entry)
    parquet.write(out / "index.parquet", _columns(Entry, kept), _made_with())
    return len(kept)


def _entries(path: Path, split: Split) -> Iterator[Entry]:
    columns = ["hash", "group", "project", "language", "source", "oz", "oz_bytes"]
    table = parquet.read(path, _MEND, [*columns, "text"])
    parquet.require(path, table, _made_with(), _MEND)
    lengths = parquet.arrow().compute.utf8_length(table["text"]).to_pylist()
    rows: list[dict[str, Any]] = table.select(columns).to_pylist()
    for row, (values, characters) in enumerate(zip(rows, lengths)):
        yield Entry(**values, characters=characters, split=split, row=row)


class Corpus:
    """A corpus to read from.

    Args:
        out: the folder that `secondpass corpus` wrote.

    Raises:
        CorpusError: there is no corpus, it is unreadable, or was made with another normal form or LLVM.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        path = out / "index.parquet"
        if not path.exists():
            raise CorpusError(f"{out}: no corpus there (no index.parquet); make one with secondpass corpus")
        mend = "run secondpass corpus again"
        table = parquet.read(path, mend)
        parquet.require(path, table, _made_with(), mend)
        columns = [table[field.name].to_pylist() for field in fields(Entry)]
        self.entries: dict[str, Entry] = {it[0]: Entry(*it) for it in zip(*columns)}
        """Every function that counts, by hash, held-out splits first."""
        self._files: OrderedDict[str, Any] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self.entries)

    def select(self, *splits: str, largest: int | None = None) -> list[Entry]:
        """The functions of some splits (all when none is named), in the order of their hashes.

        Args:
            largest: instructions, unoptimised, of the largest one wanted.
        """
        return sorted(
            (
                entry
                for entry in self.entries.values()
                if (not splits or entry.split in splits) and (largest is None or entry.source <= largest)
            ),
            key=lambda entry: entry.hash,
        )

    def bitcode(self, key: str) -> bytes:
        """The module that defines the function with this hash.

        Raises:
            KeyError: no function of the corpus has it.
        """
        return self._value(self.entries[key], "bitcode")

    def text(self, key: str) -> str:
        """The function's normalised text."""
        return self._value(self.entries[key], "text")

    def record(self, key: str) -> Record:
        """Everything about a function."""
        entry = self.entries[key]
        return Record(**{field.name: self._value(entry, field.name) for field in fields(Record)})

    def in_order_of_shards(self, keys: Iterable[str]) -> list[str]:
        """The same hashes in the order in which they are fastest to read."""
        return sorted(keys, key=lambda key: (self.entries[key].project, self.entries[key].row))

    def _value(self, entry: Entry, column: str) -> Any:
        group, row = divmod(entry.row, _ROW_GROUP)
        table = self._group(entry.project, group)
        if row >= len(table) or table["hash"][row].as_py() != entry.hash:
            raise self._changed(entry.project)
        return table[column][row].as_py()

    def _group(self, project: str, group: int) -> Any:
        key = (project, group)
        if key in self._groups:
            self._groups.move_to_end(key)
            return self._groups[key]
        file = self._file(project)
        if group >= file.num_row_groups:
            raise self._changed(project)
        try:
            table = file.read_row_group(group)
        except (OSError, parquet.arrow().ArrowException) as error:
            raise parquet.corrupt(shard_path(self._out, project), error, _MEND) from error
        self._groups[key] = table
        if len(self._groups) > _CACHED_ROW_GROUPS:
            self._groups.popitem(last=False)
        return table

    def _file(self, project: str) -> Any:
        """A project's shard, open; a corpus may have more projects than a process may have files."""
        if project in self._files:
            self._files.move_to_end(project)
            return self._files[project]
        if len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        path = shard_path(self._out, project)
        file = parquet.open_file(path, _MEND)
        parquet.require(path, file, _made_with(), _MEND)
        self._files[project] = file
        return file

    def _changed(self, project: str) -> CorpusError:
        path = shard_path(self._out, project)
        return CorpusError(f"{path}: changed since the index was made; run secondpass corpus again")
