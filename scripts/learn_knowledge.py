"""What the tuner ships with: the coreset, and which pass follows which, from the labels of training functions.

    secondpass tune build/corpus --split train --functions 1500 --budget 800 --out build/deep.parquet
    python scripts/learn_knowledge.py --corpus build/corpus --labels build/deep.parquet

Candidates are the lists that were best or next best, and better than -Oz, on most functions. Each is tried on every
function of a sample of the training split; the coreset is their greedy cover of the gain (`tuner.coreset`). Writes
`src/secondpass/tuner/knowledge_data/OBJECTIVE.json` and prints the cover's share of the labels' own gain.

    python scripts/learn_knowledge.py --corpus build/corpus --labels data/labels-instructions.parquet --keep-coreset

learns the winners alone, in seconds: the portfolio and the table of outcomes were made for the coreset that ships.
Where all labels are of training functions, as those for bytes are, `--all-labels` takes those of others too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError, run_script
from secondpass.files import write_whole
from secondpass.llvm.jobs import Job
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.progress import progress_bar
from secondpass.prompt import Objective
from secondpass.tuner.coreset import greedy_cover, shipped
from secondpass.tuner.labels import Label, read_labels
from secondpass.tuner.search import OZ

CANDIDATES = 400
CORESET = 50
SHARE_OF_THE_BEST = 3
"""Weight of a function's best list among its winners; a next best one that still beats -Oz has one."""
KEPT_WINNERS = 4_000

TARGET = Path(__file__).parent.parent / "src" / "secondpass" / "tuner" / "knowledge_data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--objective", choices=list(Objective), type=Objective, default=Objective.INSTRUCTIONS)
    parser.add_argument("--functions", type=int, default=1_500, help="functions the candidates are tried on")
    parser.add_argument("--keep-coreset", action="store_true", help="learn the winners alone; nothing is tried")
    parser.add_argument("--all-labels", action="store_true", help="with --keep-coreset: of functions elsewhere too")
    options = parser.parse_args()
    corpus = Corpus(options.corpus)
    labels = read_labels(options.labels, options.objective, corpus)
    if options.all_labels and options.keep_coreset:
        known = labels.keys() - {it.hash for it in corpus.select("validation", "test")}
    else:
        known = labels.keys() & {it.hash for it in corpus.select("train")}
    train = [labels[key] for key in sorted(known)]
    winners = weighted_winners(train)
    print(f"{len(train):,} training functions, {len(winners):,} lists that beat -Oz")
    if not winners:
        raise CorpusError(f"{options.labels}: no list there beats -Oz on a training function of {options.corpus}")
    if options.keep_coreset:
        lists = shipped(options.objective).lists
    else:
        candidates = [words for words, _ in winners.most_common(CANDIDATES)]
        lists = chosen(corpus, train[: options.functions], candidates, options.objective)
    knowledge = {
        "coreset": [" ".join(words) for words in lists],
        "winners": {" ".join(words): weight for words, weight in winners.most_common(KEPT_WINNERS)},
    }
    write_whole(TARGET / f"{options.objective}.json", f"{json.dumps(knowledge, indent=0)}\n".encode())
    return 0


def chosen(corpus: Corpus, sample: list[Label], candidates: list[Words], objective: Objective) -> list[Words]:
    """The coreset: a sample's greedy cover, then the commonest candidates where no more help the sample."""
    cover = greedy_cover(measure(corpus, sample, candidates, objective), [it.oz for it in sample], CORESET)
    reached = 1 - sum(label.best.value for label in sample) / sum(label.oz for label in sample)
    for size in (1, 3, 10, 25, CORESET):
        gain = cover[min(size, len(cover)) - 1][1]
        print(f"{size:3} lists: {gain:.2%} smaller than -Oz, {gain / reached:.0%} of the labels' gain")
    return list(dict.fromkeys((*(words for words, _ in cover), *candidates)))[:CORESET]


def weighted_winners(labels: list[Label]) -> Counter[Words]:
    """The lists that beat -Oz, by weight; those that beat it by more count no more, or large functions would decide."""
    winners: Counter[Words] = Counter()
    for label in labels:
        if label.gain > 0:
            winners[label.best.passes] += SHARE_OF_THE_BEST
            winners.update(it.passes for it in label.found[1:] if it.value < label.oz and it.passes != OZ)
    return winners


def measure(
    corpus: Corpus, labels: list[Label], candidates: list[Words], objective: Objective
) -> dict[Words, list[int]]:
    """Each candidate's value on every function; where it fails, -Oz's."""
    pipelines = tuple(str(PassList.of(*words)) for words in candidates)
    values = {words: [label.oz for label in labels] for words in candidates}
    place = {label.hash: index for index, label in enumerate(labels)}
    order = corpus.in_order_of_shards(place)
    jobs = (Job(corpus.bitcode(key), pipelines, key, bytes=objective is Objective.BYTES) for key in order)
    with Sandbox() as sandbox, progress_bar() as progress:
        for done, (job, outcomes) in enumerate(sandbox.run(jobs), 1):
            for words, outcome in zip(candidates, outcomes):
                if outcome.ok:
                    value = outcome.bytes if objective is Objective.BYTES else outcome.instructions
                    values[words][place[job.name]] = value
            if progress is not None:
                progress("trying candidates", done, len(order))
    return values


if __name__ == "__main__":
    sys.exit(run_script(main))
