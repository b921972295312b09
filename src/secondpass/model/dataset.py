"""Training data on disk: token ids, ready to be learnt, and what they fit.

    DIR/data.json           `Manifest`: the task, the versions, the longest example
    DIR/tokenizer.json      the tokenizer that made the ids
    DIR/train.parquet, DIR/validation.parquet

An example is a context, and one or several answers to it; and lists that need not be good, of which only the
counts they lead to are learnt. What the model has read is the same for all of them, so it is stored once, and a
trainer may read it once. `model.data` writes these directories,
`model.train` reads them. The module knows token ids; it knows nothing of torch or LLVM.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from secondpass import parquet
from secondpass.errors import InputError, ModelError
from secondpass.files import digest, lock
from secondpass.ir import NORMAL_FORM_VERSION
from secondpass.llvm.vocabulary import VOCABULARY_VERSION
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import FORMAT_VERSION as PROMPT_FORMAT_VERSION

FORMAT_VERSION = 2
"""Of the directory."""
MANIFEST, TOKENIZER = "data.json", "tokenizer.json"
ANSWERS = "answers.jsonl"
"""A model's answers while feedback data are made of them."""
_LOCK = "lock"
Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
Ids = NDArray[np.int32]
_MEND = "make the data again with secondpass data"


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A context and its answers.

    Attributes:
        function: its hash in the corpus.
        context: ids of what is read before an answer: the prompt, and where feedback is trained an answer and the
            feedback on it.
        prompt_end: `context[:prompt_end]` is the prompt; the rest was not written by the model's teacher and is
            never learnt.
        answers: ids of each answer, the end marker included; the best one first.
        shares: how much each answer counts; they sum to 1.
        gain: how much smaller than -Oz the best answer is, in units of the objective; 0 where nothing beats it.
        counted: ids of answers whose lists need not be good, the end marker included.
        given: how many ids at the beginning of each of those are given; what follows, the count, is learnt.
    """

    function: str
    context: Ids
    prompt_end: int
    answers: tuple[Ids, ...]
    shares: tuple[float, ...]
    gain: int
    counted: tuple[Ids, ...] = ()
    given: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of the context with all that follows it."""
        return len(self.context) + sum(map(len, (*self.answers, *self.counted)))

    @property
    def longest(self) -> int:
        """Tokens of the context with the longest of what follows it: what a model's context must hold."""
        return len(self.context) + max(map(len, (*self.answers, *self.counted)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a reader of the directory must know."""

    task: str
    """`optimize` or `feedback`."""
    form: str | None
    """Of the feedback; None for task Optimize."""
    code: bool
    """Whether answers hold the optimised IR."""
    context: int
    """Tokens of the longest example at most."""
    tokenizer: str
    """SHA-256 of the tokenizer's file."""
    counts: Mapping[str, int]
    """Examples of each split."""
    left_out: Mapping[str, int]
    """Labelled functions of each split that are longer than `context`."""
    made_from: Mapping[str, Any]
    """The options that made it."""
    format_version: int = FORMAT_VERSION
    prompt_version: int = PROMPT_FORMAT_VERSION
    normal_form_version: int = NORMAL_FORM_VERSION
    vocabulary_version: int = VOCABULARY_VERSION

    def write(self, directory: Path) -> None:
        """Write `data.json`."""
        (directory / MANIFEST).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read `data.json`, and check that this package and the tokenizer fit.

        Raises:
            ModelError: it is missing, damaged or of another version, or the tokenizer was exchanged.
        """
        path = directory / MANIFEST
        try:
            values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
            for name, expected in _EXPECTED.items():
                if values.get(name) != expected:
                    what = name.replace("_", " ")
                    raise ModelError(f"{path}: made with {what} {values.get(name)}, not {expected}; {_MEND}")
            found = cls(**values)
        except FileNotFoundError as error:
            raise ModelError(f"{directory} holds no training data (no {MANIFEST}); {_MEND}") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is damaged ({error}); {_MEND}") from error
        if digest(directory / TOKENIZER) != found.tokenizer:
            raise ModelError(f"{directory}: {TOKENIZER} is not the one that made the ids; {_MEND}")
        return found


_EXPECTED = {
    "format_version": FORMAT_VERSION,
    "prompt_version": PROMPT_FORMAT_VERSION,
    "normal_form_version": NORMAL_FORM_VERSION,
    "vocabulary_version": VOCABULARY_VERSION,
}


@contextmanager
def being_written(directory: Path) -> Generator[None]:
    """Take a directory to write training data into.

    Raises:
        InputError: there is something else, somebody else is writing there, or it cannot be written to.
    """
    ours = {MANIFEST, TOKENIZER, ANSWERS, _LOCK, *(f"{split}.parquet" for split in SPLITS)}
    strange = directory.is_dir() and any(it.name not in ours and it.suffix != ".tmp" for it in directory.iterdir())
    if strange or (directory.exists() and not directory.is_dir()):
        raise InputError(f"{directory}: there is something else already; name another --out")
    busy = f"{directory}: another command is writing data there; wait for it or name another --out"
    with lock(directory / _LOCK, busy):
        yield


def begin(directory: Path, tokenizer: Tokenizer) -> None:
    """Write the tokenizer; from now on the directory is no training data until its manifest is there again."""
    (directory / MANIFEST).unlink(missing_ok=True)
    tokenizer.save(directory / TOKENIZER)


def write_split(directory: Path, split: Split, examples: Sequence[Example]) -> None:
    """Write the examples of a split; the file appears complete or not at all."""
    pa = parquet.arrow()
    ids = pa.list_(pa.int32())
    columns = {
        "function": (pa.string(), [it.function for it in examples]),
        "context": (ids, [it.context for it in examples]),
        "prompt_end": (pa.int32(), [it.prompt_end for it in examples]),
        "answers": (pa.list_(ids), [list(it.answers) for it in examples]),
        "shares": (pa.list_(pa.float32()), [it.shares for it in examples]),
        "gain": (pa.int32(), [it.gain for it in examples]),
        "counted": (pa.list_(ids), [list(it.counted) for it in examples]),
        "given": (pa.list_(pa.int32()), [it.given for it in examples]),
    }
    parquet.write(directory / f"{split}.parquet", columns, {})


class Dataset(Sequence[Example]):
    """The examples of a split, in memory as arrays; examples are made as they are asked for.

    Attributes:
        manifest, tokenizer: of the directory.
        lengths: tokens of each example, context and all that follows it.
        gains: `Example.gain` of each.
    """

    def __init__(self, directory: Path, split: Split) -> None:
        """Read a split.

        Raises:
            ModelError: the directory is of another version or damaged, or the split is empty.
            CorpusError: the file cannot be read, or pyarrow is missing.
        """
        self.manifest = Manifest.read(directory)
        self.tokenizer = Tokenizer.load(directory / TOKENIZER)
        table = parquet.read(directory / f"{split}.parquet", _MEND).combine_chunks()
        if not len(table):
            raise ModelError(f"{directory}: the split '{split}' is empty: label functions of it, then {_MEND}")
        self._functions = cast("list[str]", table["function"].to_pylist())
        self._context = _Lists.of(_column(table, "context"))
        self._answers, self._counted = (_Nested.of(_column(table, name)) for name in ("answers", "counted"))
        self._shares, self._given = (_array(_column(table, name).values) for name in ("shares", "given"))
        self._prompt_ends = _array(_column(table, "prompt_end"))
        self.gains = _array(_column(table, "gain"))
        self.lengths: Ids = np.diff(self._context.offsets) + self._answers.lengths + self._counted.lengths

    def __len__(self) -> int:
        return len(self.gains)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._example(it) for it in range(*index.indices(len(self)))]
        return self._example(int(index))

    def _example(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(index)
        answers, counted = self._answers.places(index), self._counted.places(index)
        return Example(
            self._functions[index],
            self._context[index],
            int(self._prompt_ends[index]),
            tuple(self._answers.lists[it] for it in answers),
            tuple(map(float, self._shares[answers.start : answers.stop])),
            int(self.gains[index]),
            tuple(self._counted.lists[it] for it in counted),
            tuple(map(int, self._given[counted.start : counted.stop])),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """Lists of ids, one after the other: list n is `values[offsets[n] : offsets[n + 1]]`."""

    values: Ids
    offsets: Ids

    @classmethod
    def of(cls, column: Any) -> Self:
        return cls(_array(column.values), _array(column.offsets))

    def __getitem__(self, number: int) -> Ids:
        return self.values[self.offsets[number] : self.offsets[number + 1]]


@dataclass(frozen=True, slots=True, eq=False)
class _Nested:
    """Several lists of ids a row: those of row n are `lists[offsets[n]]` to before `lists[offsets[n + 1]]`."""

    offsets: Ids
    lists: _Lists

    @classmethod
    def of(cls, column: Any) -> Self:
        return cls(_array(column.offsets), _Lists.of(column.values))

    @property
    def lengths(self) -> Ids:
        """Ids of all lists of each row."""
        return np.diff(self.lists.offsets[self.offsets])

    def places(self, row: int) -> range:
        """The numbers of a row's lists."""
        return range(self.offsets[row], self.offsets[row + 1])


def _column(table: Any, name: str) -> Any:
    """A column as one array."""
    chunks = table[name].chunks
    return chunks[0] if len(chunks) == 1 else parquet.arrow().concat_arrays(chunks)


def _array(column: Any) -> Any:
    return column.to_numpy(zero_copy_only=False)
