"""What labels hold: how many functions of each split, what their best lists gain, which passes they are made of.

    python scripts/label_statistics.py --corpus build/corpus data/labels-*.parquet

Prints the tables of data/README.md. Labels of functions that the corpus lacks are counted apart.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus, Entry
from secondpass.errors import run_script
from secondpass.tuner.labels import Label, objective_of, read_labels

COMMONEST = 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("labels", nargs="+", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    for path in options.labels:
        objective = objective_of(path)
        print(f"\n{path}: {objective}")
        report(corpus, list(read_labels(path, objective).values()))
    return 0


def report(corpus: Corpus, labels: Sequence[Label]) -> None:
    known = [(corpus.entries[it.hash], it) for it in labels if it.hash in corpus.entries]
    print("| split | projects | functions | labelled | compiles a function | improved | gain over -Oz | mean gain |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for split in SPLITS:
        row(
            split, corpus, [pair for pair in known if pair[0].split == split], lambda it, split=split: it.split == split
        )
    for language in ("c", "c++"):
        chosen = [pair for pair in known if pair[0].language == language]
        row(language, corpus, chosen, lambda it, language=language: it.language == language)
    print(f"labels of functions that are not in the corpus: {len(labels) - len(known)}")
    winners = [label for _, label in known if label.gain]
    distinct = Counter(label.best.passes for label in winners)
    print(f"{len(distinct):,} distinct best lists on {len(winners):,} functions where something beats -Oz")
    passes = Counter(word for label in winners for word in set(label.best.passes))
    for word, count in passes.most_common(COMMONEST):
        print(f"  {word} {count / max(1, len(winners)):.1%}")


def row(name: str, corpus: Corpus, pairs: Sequence[tuple[Entry, Label]], of_kind) -> None:
    every = [it for it in corpus.entries.values() if of_kind(it)]
    labels = [label for _, label in pairs]
    if not labels:
        print(f"| {name} | {len({it.project for it in every})} | {len(every):,} | 0 | | | | |")
        return
    oz = sum(label.oz for label in labels)
    gain = sum(label.gain for label in labels)
    mean = sum(label.gain / label.oz for label in labels) / len(labels)
    compiles = sum(label.compiles for label in labels) / len(labels)
    improved = sum(label.gain > 0 for label in labels) / len(labels)
    print(
        f"| {name} | {len({it.project for it in every})} | {len(every):,} | {len(labels):,} | {compiles:.0f} "
        f"| {improved:.1%} | {gain / oz:.2%} | {mean:.2%} |"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
