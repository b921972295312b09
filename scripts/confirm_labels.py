#!/usr/bin/env python3
"""Compile again what a label file says of lists whose result depends on addresses, and write down the worst.

    python scripts/confirm_labels.py CORPUS LABELS --out LABELS

A search keeps what is best; of a list with `gvn-sink`, whose result depends on where memory lies
(docs/miscompilations.md), it kept the luckiest. Here such a list runs in a process of its own, as everywhere, and some
times more with other addresses. Labels of functions that the corpus does not have stay as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import run_script
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import BY_ADDRESS
from secondpass.prompt import Objective
from secondpass.tuner.explorer import Explorer
from secondpass.tuner.labels import Label, broadcast_of, objective_of, read_labels, true_of, write_labels
from secondpass.tuner.search import OZ, Found

DRAWS = 6
SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    objective = objective_of(options.labels)
    labels, corpus = read_labels(options.labels, objective), Corpus(options.corpus)
    known = {key for key, it in labels.items() if key in corpus.entries and true_of(it, corpus.entries[key], objective)}
    doubtful = {key: labels[key] for key in known if any(map(depends, labels[key].found))}
    order = corpus.in_order_of_shards(doubtful)
    worst: dict[tuple[str, Found], int | None] = {}
    with Sandbox(options.workers, SECONDS, fork=True) as sandbox:  # workers know `worst_of` then
        for key, found, value in compiled(doubtful, order, corpus, objective, sandbox):
            worst[key, found] = None if value is None else max(found.value, value)
    mended = {key: confirmed(label, worst) for key, label in doubtful.items()}
    changed = [key for key, label in mended.items() if label.best != labels[key].best]
    lost = sum(labels[key].gain - mended[key].gain for key in changed)
    gain = sum(labels[key].gain for key in known)
    print(
        f"{len(doubtful):,} labels of the corpus depend on addresses; {len(changed):,} have another best list or value"
    )
    print(f"their gain is {lost:,} {objective} less, of {gain:,} of all labels of the corpus")
    written = [mended.get(key, it) for key, it in labels.items()]
    write_labels(options.out, written, objective, broadcast_of(options.labels))
    return 0


def depends(found: Found) -> bool:
    return not BY_ADDRESS.isdisjoint(found.passes)


def compiled(
    labels: Mapping[str, Label], order: Iterable[str], corpus: Corpus, objective: Objective, sandbox: Sandbox
) -> Iterator[tuple[str, Found, int | None]]:
    """Each doubtful list of each function with its worst value; None where it fails."""
    work = partial(worst_of, objective)

    def doubtful(key: str) -> list[Found]:
        return [it for it in labels[key].found if depends(it)]

    jobs = (
        Job(corpus.bitcode(key), tuple(" ".join(it.passes) for it in doubtful(key)), key, each=work) for key in order
    )
    for job, outcomes in sandbox.run(jobs):
        for found, it in zip(doubtful(job.name), outcomes, strict=True):
            yield job.name, found, it.instructions if it.ok else None


def worst_of(objective: Objective, bitcode: bytes, words: str) -> Outcome:
    """The largest value of a list on several copies of a function, as instructions; each lies at other addresses."""
    with Explorer(bitcode, objective) as explorer:
        value = explorer.confirm(words.split(), draws=DRAWS)
    return Outcome(Status.OK, "", value) if value is not None else Outcome(Status.INVALID, "it fails")


def confirmed(label: Label, worst: Mapping[tuple[str, Found], int | None]) -> Label:
    """The label with the values that hold, best first; -Oz where nothing better is left."""
    values = ((it, worst.get((label.hash, it), it.value)) for it in label.found)
    found = [Found(it.passes, value) for it, value in values if value is not None]
    found.sort(key=lambda it: (it.value, len(it.passes)))
    if not found or found[0].value > label.oz:
        found = [Found(OZ, label.oz), *(it for it in found if it.passes != OZ)]
    return replace(label, found=tuple(found[: len(label.found)]))


if __name__ == "__main__":
    sys.exit(run_script(main))
