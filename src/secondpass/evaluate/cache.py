"""What was tried, kept: a line of JSON a function, a file a method.

An evaluation that is killed goes on where it was, and one that is run again reads instead of computing. A file is
named by everything its lines depend on besides the function.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secondpass.evaluate.cases import Case, Trials, Tried
from secondpass.evaluate.methods import Method
from secondpass.evaluate.models import Model, ask_together
from secondpass.files import appending, lock, read_records
from secondpass.progress import Progress

_LONGEST_STEM = 120
"""Of a file's name, which file systems limit to 255 bytes."""


class Cache:
    """The folder of such files; one evaluation at a time.

    Args:
        folder: made where it does not exist.

    Raises:
        InputError: another evaluation is using it, or it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        busy = f"{folder}: another evaluation is using it; wait for it or name another --out"
        self._lock = lock(folder / "lock", busy)

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tried(self, method: Method, cases: Sequence[Case], progress: Progress | None = None) -> dict[str, Trials]:
        """What a method tried on each case: what is kept, and what it tries now.

        Args:
            method: to be measured.
            cases: the functions.
            progress: called with the method's name, functions done and in all.
        """
        kept = self.method(method.name, method.facts)
        waiting = [case for case in cases if case.key not in kept.trials]
        done = len(cases) - len(waiting)
        if waiting:
            for more, trials in enumerate(method.trials(waiting), 1):
                kept.add(trials)
                if progress is not None:
                    progress(method.name, done + more, len(cases))
        return kept.trials

    def ask(self, name: str, ways: Sequence[Model], cases: Sequence[Case], progress: Progress | None = None) -> None:
        """Have one model asked in several ways together, as far as their trials are not kept yet.

        Args:
            name: of them together.
            ways: strategies of one model.
            cases: the functions.
            progress: called with the name, functions done and in all.
        """
        kept = [self.method(way.name, way.facts) for way in ways]
        missing = ((case, tuple(n for n, it in enumerate(kept) if case.key not in it.trials)) for case in cases)
        waiting = [(case, places) for case, places in missing if places]
        done = len(cases) - len(waiting)
        if waiting:
            for more, found in enumerate(ask_together(name, ways, waiting), 1):
                for place, trials in found:
                    kept[place].add(trials)
                if progress is not None:
                    progress(name, done + more, len(cases))

    def method(self, name: str, facts: object) -> Kept:
        """What one method tried.

        Args:
            name: for people.
            facts: everything its results depend on, the function excepted; of values that JSON knows.
        """
        text = json.dumps(facts, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        stem = re.sub(r"[^\w.-]+", "-", name).strip("-")[:_LONGEST_STEM]
        return Kept(self._folder / f"{stem}-{digest}.jsonl")


class Kept:
    """A method's trials, by function."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trials = {it.key: it for it in map(_trials, read_records(path)) if it is not None}

    def add(self, trials: Trials) -> None:
        """Keep those of one more function."""
        with appending(self._path) as add:
            add(_row(trials))
        self.trials[trials.key] = trials


def _row(trials: Trials) -> dict[str, Any]:
    row = asdict(trials)
    row["tried"] = [[" ".join(it["passes"]), *list(it.values())[1:]] for it in row["tried"]]
    return row


def _trials(row: Any) -> Trials | None:
    """The trials of a row; None where it is none of this version, and has to be made again."""
    try:
        row["tried"] = tuple(Tried(tuple(words.split()), *rest) for words, *rest in row["tried"])
        return Trials(**row)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
