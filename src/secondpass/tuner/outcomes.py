"""What the same few lists do on many functions: the table that says which list would have been right.

A search minimises what it finds, function by function: a list that is good on thousands of functions hides behind
thousands of shorter ones. Lists that many functions share are easier to learn, and to sample twice; and what a list
that is no good leaves of a function teaches what passes do.

    outcomes = try_lists(corpus, keys, coreset(objective, 50), path, objective, sandbox)

The table is one parquet file, written anew every few minutes while it grows: whoever is interrupted goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secondpass import parquet
from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError
from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.labels import versions
from secondpass.tuner.search import OZ

Values = NDArray[np.int32]
_SCREEN = 10
"""Lists that decide whether the others are worth their time."""
_AT_ONCE = 512
_WRITE_SECONDS = 120.0
_LISTS = "lists"
_MEND = "it is no table of outcomes, or a damaged one: delete it or name another"


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Values of an objective, function by function and list by list.

    Attributes:
        objective: what was measured.
        lists: the lists, in the order of the columns.
        oz: the value of each function at -Oz, by hash.
        values: what the lists leave of each function, by hash, (lists,) each; 0 where one does not compile, or was
            not tried.
    """

    objective: Objective
    lists: tuple[Words, ...]
    oz: Mapping[str, int]
    values: Mapping[str, Values]

    def gain(self, lists: int) -> int:
        """What the best of the first lists, or -Oz, takes off -Oz, summed up over the functions."""
        tried = ((self.oz[key], values[:lists]) for key, values in self.values.items())
        return sum(oz - min(oz, *values[values > 0].tolist()) for oz, values in tried if values.any())


def try_lists(
    corpus: Corpus,
    keys: Sequence[str],
    lists: Sequence[PassList],
    path: Path,
    objective: Objective,
    sandbox: Sandbox,
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Try lists on every function; what the file has already is not tried again.

    Where none of the first ten, which find most of what there is, beats -Oz, the others are not tried.

    Args:
        corpus: where the functions are.
        keys: their hashes.
        lists: what to try.
        path: the file.
        objective: what to measure.
        sandbox: tries them.
        progress: called with functions done and in all.

    Raises:
        CorpusError: the file is of other lists, another objective or other versions, or cannot be read.
    """
    words = tuple(it.words for it in lists)
    oz: dict[str, int] = {}
    values: dict[str, Values] = {}
    if path.exists():
        before = read_outcomes(path, objective)
        if before.lists != words:
            raise CorpusError(f"{path}: is of {len(before.lists)} other lists; name another file")
        oz, values = dict(before.oz), dict(before.values)
    wanted = set(keys)
    waiting = corpus.in_order_of_shards(wanted.difference(values))
    found, written = Outcomes(objective, words, oz, values), time.monotonic()
    untried = [0] * len(words[_SCREEN:])
    try:
        for start in range(0, len(waiting), _AT_ONCE):
            these = waiting[start : start + _AT_ONCE]
            tried = _tried(corpus, these, (OZ, *words[:_SCREEN]), objective, sandbox)
            comparable = {key: of_key for key, of_key in tried.items() if of_key[0]}
            promising = [
                key for key, (first, *others) in comparable.items() if min(filter(None, others), default=first) < first
            ]
            rest = _tried(corpus, promising, words[_SCREEN:], objective, sandbox)
            for key, (first, *of_key) in comparable.items():
                oz[key] = first
                values[key] = np.array(of_key + rest.get(key, untried), dtype=np.int32)
            if progress is not None:
                progress(len(wanted) - len(waiting) + start + len(these), len(wanted))
            if time.monotonic() - written > _WRITE_SECONDS:
                write_outcomes(path, found)
                written = time.monotonic()
    finally:
        write_outcomes(path, found)
    return found


def _tried(
    corpus: Corpus, keys: Sequence[str], lists: Sequence[Words], objective: Objective, sandbox: Sandbox
) -> dict[str, list[int]]:
    """What lists leave of functions, by hash; 0 where one does not compile."""
    measure = objective is Objective.BYTES
    pipelines = tuple(str(PassList.of(*words)) for words in lists)
    jobs = (Job(corpus.bitcode(key), pipelines, key, bytes=measure) for key in keys)
    return {job.name: [_value(it, measure) for it in outcomes] for job, outcomes in sandbox.run(jobs)}


def _value(outcome: Outcome, measure: bool) -> int:
    value = outcome.bytes if measure else outcome.instructions
    return value if outcome.ok and value is not None else 0


def write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write the file; it appears complete or not at all."""
    pa = parquet.arrow()
    keys = sorted(outcomes.values)
    columns = {
        "hash": (pa.string(), keys),
        "oz": (pa.int32(), [outcomes.oz[key] for key in keys]),
        "values": (pa.list_(pa.int32()), [outcomes.values[key] for key in keys]),
    }
    lists = [" ".join(words) for words in outcomes.lists]
    parquet.write(path, columns, {**versions(outcomes.objective), _LISTS: lists})


def read_outcomes(path: Path, objective: Objective) -> Outcomes:
    """Read the file.

    Raises:
        CorpusError: it cannot be read, or was made for another objective, LLVM, vocabulary or normal form.
    """
    table = parquet.read(path, _MEND)
    made = parquet.require(path, table, versions(objective), "name another file")
    if _LISTS not in made:
        raise CorpusError(f"{path}: {_MEND}")
    lists = tuple(tuple(text.split()) for text in made[_LISTS])
    keys = table["hash"].to_pylist()
    values = table["values"].combine_chunks().flatten().to_numpy().reshape(len(keys), len(lists))
    return Outcomes(objective, lists, dict(zip(keys, table["oz"].to_pylist())), dict(zip(keys, values)))
