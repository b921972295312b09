"""Which functions have which winners: the table of neighbours that ships (`tuner.neighbours`).

    secondpass data outcomes build/corpus --out build/outcomes.parquet
    python scripts/learn_neighbours.py --corpus build/corpus --labels LABELS --outcomes build/outcomes.parquet

Of the functions of the table of outcomes that have a label and are of neither the validation nor the test split, those
on which other lists are better than the coreset's first twenty, as far as these were tried. Writes
`src/secondpass/tuner/knowledge_data/OBJECTIVE-neighbours.json.gz`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError, run_script
from secondpass.llvm.passes import Words
from secondpass.prompt import Objective
from secondpass.tuner.labels import Label, read_labels
from secondpass.tuner.neighbours import Neighbour, Neighbours, neighbour, write
from secondpass.tuner.outcomes import read_outcomes
from secondpass.tuner.search import KNOWN, OZ

PROBES = 10
"""The table of outcomes has the values of so many lists for every function."""
TARGET = Path(__file__).parent.parent / "src" / "secondpass" / "tuner" / "knowledge_data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--objective", choices=list(Objective), type=Objective, default=Objective.INSTRUCTIONS)
    options = parser.parse_args()
    outcomes = read_outcomes(options.outcomes, options.objective)
    corpus = Corpus(options.corpus)
    labels = read_labels(options.labels, options.objective, corpus)
    held_out = {it.hash for it in corpus.select("validation", "test")}
    first = frozenset(outcomes.lists[:KNOWN])
    functions: list[Neighbour] = []
    for key in sorted((labels.keys() & outcomes.values.keys()) - held_out):
        oz, values = outcomes.oz[key], outcomes.values[key].tolist()
        if labels[key].oz != oz:
            continue
        known = known_values(labels[key], outcomes.lists, values)
        reached = min([oz, *(value for words, value in known if words in first)])
        better = {words: value for words, value in dict(known).items() if value < reached}  # the table knows better
        if better:
            functions.append(neighbour(oz, [it or oz for it in values[:PROBES]], reached, better))
    if not functions:
        raise CorpusError(f"{options.labels}: no list there is better than the first ones of {options.outcomes}")
    path = TARGET / f"{options.objective}-neighbours.json.gz"
    write(path, Neighbours(outcomes.lists[:PROBES], tuple(functions)))
    winners = {words for it in functions for words in it.winners}
    print(f"{path.name}: {len(functions):,} functions, {len(winners):,} lists, {path.stat().st_size:,} bytes")
    return 0


def known_values(label: Label, lists: tuple[Words, ...], values: list[int]) -> list[tuple[Words, int]]:
    """What lists leave of a function by its label, then by the table of outcomes; a list may have a value of each.

    Where the first ten lists are no better than -Oz, the table has not tried the others.
    """
    of_label = [(it.passes, it.value) for it in label.found if it.passes != OZ]
    return of_label + [(words, value) for words, value in zip(lists, values) if value]


if __name__ == "__main__":
    sys.exit(run_script(main))
