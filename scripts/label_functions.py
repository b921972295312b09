"""Stage 3: the best pass list found for every function, by a simple search.

    python scripts/label_functions.py --data build --out data/labels.jsonl.gz

About 130 lists a function. -Oz first; then random lists; then mutations of each function's best two;
then the winners lose every pass they do not need; then the winners of all functions are tried on each
one. Where several lists leave equally few instructions the native bytes decide, then how often a list
wins in the corpus (see `choose`), so that a model is not asked to tell lists of one effect apart.
State is kept after each stage in `labels.state.json` under --data: an interrupted run goes on there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.vocabulary import VOCABULARY

SEED = 1
RANDOM_LISTS = 45
MUTATIONS = 25
BROADCAST = 45
MINIMISE_ROUNDS = 6
OTHERS = 8
"""Lists kept beside the best: what a model's wrong answers look like, with their true counts."""
MEASURED = 6
"""Lists of a function, equal in instructions, whose bytes are measured to choose the label."""
LONGEST = 24
LARGEST = 160
"""Instructions of the largest function labelled for training: what fits the first model, at a bearable cost."""
HELD_OUT = {"test": 700, "valid": 300}
"""Functions labelled of the held-out splits: enough to measure with, lowest hashes first."""
STAGES = ("random", "mutate", "minimise", "broadcast", "minimise-again")

WORDS = [entry.text for entry in VOCABULARY]
PASSES = [word for word in WORDS if not word.startswith("default<")]
# What the winners of a first search were made of, so that random lists meet it more often.
FRUITFUL = (
    "sroa mem2reg instcombine<no-verify-fixpoint> jump-threading early-cse<memssa> gvn newgvn gvn-sink gvn-hoist"
    " simplifycfg<hoist-common-insts;sink-common-insts;no-keep-loops> load-store-vectorizer"
    " simplifycfg<forward-switch-cond;switch-range-to-icmp;switch-to-arithmetic;no-keep-loops>"
    " gvn<no-scalar-pre;no-load-pre> simplifycfg<bonus-inst-threshold=4;speculate-unpredictables>"
    " simplifycfg<switch-to-lookup;switch-range-to-icmp> instcombine<max-iterations=4;no-verify-fixpoint>"
).split()

Words = tuple[str, ...]
OZ: Words = ("default<O2>",)
Tried = dict[str, dict[Words, int]]
"""By function hash: the count each list gave."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--until", choices=STAGES, default=STAGES[-1], help="stop after this stage, write no labels")
    options = parser.parse_args()
    records = labelled([json.loads(line) for line in (options.data / "functions.jsonl").read_text().splitlines()])
    state = options.data / "labels.state.json"
    done, tried = restore(state, records)
    with Sandbox() as sandbox, zipfile.ZipFile(options.data / "functions.zip") as archive:
        for index, stage in enumerate(STAGES[: STAGES.index(options.until) + 1]):
            waiting = [key for key in tried if done[key] == index]
            run_stage(stage, sandbox, archive, waiting, tried)
            done |= dict.fromkeys(waiting, index + 1)
            save(state, done, tried)
            print(f"{stage}: {gain(tried):.2%} fewer instructions than -Oz on {len(tried):,} functions", flush=True)
        if options.until == STAGES[-1]:
            write(options.out, records, tried, measure_ties(sandbox, archive, tried))
    return 0


def labelled(records: list[dict]) -> list[dict]:
    """The functions to label: all for training, a sample of those held out."""
    records = sorted(records, key=lambda record: record["hash"])
    chosen = [record for record in records if record["split"] == "train" and record["source"] <= LARGEST]
    for split, most in HELD_OUT.items():
        chosen += [record for record in records if record["split"] == split][:most]
    return chosen


def restore(state: Path, records: list[dict]) -> tuple[dict[str, int], Tried]:
    """How many stages each function has behind it, and what was tried on it."""
    tried: Tried = {record["hash"]: {OZ: record["oz"]} for record in records}
    done = dict.fromkeys(tried, 0)
    if state.exists():
        saved = json.loads(state.read_text())
        for key in saved["done"].keys() & tried.keys():
            done[key] = saved["done"][key]
            tried[key] = {tuple(words.split()): count for words, count in saved["tried"][key].items()}
    return done, tried


def save(state: Path, done: dict[str, int], tried: Tried) -> None:
    lists = {key: {" ".join(words): count for words, count in it.items()} for key, it in tried.items()}
    temporary = state.with_suffix(".tmp")
    temporary.write_text(json.dumps({"done": done, "tried": lists}))
    temporary.replace(state)


def run_stage(stage: str, sandbox: Sandbox, archive: zipfile.ZipFile, keys: list[str], tried: Tried) -> None:
    if stage.startswith("minimise"):
        for _ in range(MINIMISE_ROUNDS):
            if not compile_all(stage, sandbox, archive, tried, shorter_lists(keys, tried)):
                return
        return
    winners = [words for words, _ in winner_counts(tried).most_common(BROADCAST)]
    proposals: dict[str, Callable[[random.Random, str], Iterable[Words]]] = {
        "random": lambda rng, key: (
            [("default<O1>",), ("default<O3>",)] + [random_list(rng) for _ in range(RANDOM_LISTS)]
        ),
        "mutate": lambda rng, key: [mutation(rng, best_two(tried[key])) for _ in range(MUTATIONS)],
        "broadcast": lambda rng, key: winners,
    }
    wanted = {}
    for key in keys:
        rng = random.Random(f"{SEED} {stage} {key}")
        wanted[key] = [words for words in proposals[stage](rng, key) if words not in tried[key]]
    compile_all(stage, sandbox, archive, tried, wanted)


def compile_all(
    stage: str, sandbox: Sandbox, archive: zipfile.ZipFile, tried: Tried, wanted: dict[str, list[Words]]
) -> int:
    """Compile the wanted lists of each function and enter their counts; how many there were."""
    wanted = {key: list(dict.fromkeys(lists)) for key, lists in wanted.items() if lists}
    total, done, started, shown = sum(map(len, wanted.values())), 0, time.time(), 0.0
    jobs = (
        Job(archive.read(key), tuple(str(PassList.of(*words)) for words in lists), key) for key, lists in wanted.items()
    )
    for job, outcomes in sandbox.run(jobs):
        for words, outcome in zip(wanted[job.name], outcomes):
            if outcome.ok:
                tried[job.name][words] = outcome.instructions
            else:
                print(f"{job.name} {' '.join(words)}: {outcome.status}, {outcome.message}", file=sys.stderr)
        done += len(outcomes)
        if time.time() - shown > 30:
            shown = time.time()
            rate = done / (shown - started + 1e-9)
            print(f"{stage}: {done:,} of {total:,} lists, {rate:.0f} a second", flush=True)
    return total


def random_list(rng: random.Random) -> Words:
    kind = rng.random()
    if kind < 0.3:
        words = ["default<O2>", *picks(rng, 1, 5)]
    elif kind < 0.55:
        words = [*picks(rng, 1, 4), rng.choice(["default<O2>", "default<O1>", "default<O3>"]), *picks(rng, 0, 3)]
    else:
        words = [rng.choice(["sroa", "mem2reg", "default<O1>"]), *picks(rng, 4, 18)]
    return tuple(words)


def picks(rng: random.Random, fewest: int, most: int) -> list[str]:
    return [rng.choice(FRUITFUL if rng.random() < 0.6 else PASSES) for _ in range(rng.randint(fewest, most))]


def mutation(rng: random.Random, parents: list[Words]) -> Words:
    first, second = list(parents[0]), list(parents[-1])
    kind = rng.randrange(4)
    if kind == 0:  # cross the two best
        child = first[: rng.randint(1, len(first))] + second[rng.randint(0, len(second) - 1) :]
    else:
        child = list(rng.choice([first, second]))
        at = rng.randint(0, len(child))
        if kind == 1:
            child[at:at] = picks(rng, 1, 2)
        elif kind == 2:
            child[at : at + 1] = picks(rng, 1, 1)
        else:
            child += picks(rng, 1, 3)
    return tuple(child[:LONGEST])


def best_two(lists: dict[Words, int]) -> list[Words]:
    return sorted(lists, key=lambda words: (lists[words], len(words)))[:2]


def shorter_lists(keys: list[str], tried: Tried) -> dict[str, list[Words]]:
    """For every function that beats -Oz, its shortest best list less one pass, where untried."""
    wanted: dict[str, list[Words]] = {}
    for key in keys:
        lists = tried[key]
        best = best_two(lists)[0]
        shorter = [best[:index] + best[index + 1 :] for index in range(len(best))]
        wanted[key] = [words for words in shorter if words and words not in lists]
    return wanted


def winner_counts(tried: Tried) -> Counter[Words]:
    """How many functions each list is the shortest best of, functions where -Oz is best left out."""
    best = (best_two(lists)[0] for lists in tried.values())
    return Counter(words for words in best if words != OZ)


def gain(tried: Tried) -> float:
    oz = sum(lists[OZ] for lists in tried.values())
    return 1 - sum(min(lists.values()) for lists in tried.values()) / oz


def measure_ties(sandbox: Sandbox, archive: zipfile.ZipFile, tried: Tried) -> Tried:
    """The native bytes of each function's most popular best lists, and of -Oz."""
    popularity = winner_popularity(tried)
    measured: Tried = {key: {} for key in tried}
    wanted = {}
    for key, lists in tried.items():
        best = [words for words in best_lists(lists) if words != OZ]
        wanted[key] = [OZ, *sorted(best, key=lambda words: (-popularity[words], len(words)))[:MEASURED]]
    jobs = (
        Job(archive.read(key), tuple(str(PassList.of(*words)) for words in lists), key, bytes=True)
        for key, lists in wanted.items()
    )
    for job, outcomes in sandbox.run(jobs):
        for words, outcome in zip(wanted[job.name], outcomes):
            if outcome.ok and outcome.bytes is not None:
                measured[job.name][words] = outcome.bytes
    return measured


def best_lists(lists: dict[Words, int]) -> list[Words]:
    least = min(lists.values())
    return [words for words, count in lists.items() if count == least]


def winner_popularity(tried: Tried) -> Counter[Words]:
    """How many functions each list is a best one of, of those where -Oz is not."""
    popularity: Counter[Words] = Counter()
    for lists in tried.values():
        if min(lists.values()) < lists[OZ]:
            popularity.update(best_lists(lists))
    return popularity


def write(out: Path, records: list[dict], tried: Tried, measured: Tried) -> None:
    """The labels: the best list, and others with their counts."""
    popularity: Counter[Words] = Counter()
    for sizes in measured.values():
        popularity.update(best_lists({words: size for words, size in sizes.items() if words != OZ} or {OZ: 0}))
    out.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(out, "wt", compresslevel=9) as sink:
        for record in records:
            lists, sizes = tried[record["hash"]], measured[record["hash"]]
            label = {"hash": record["hash"], "source": record["source"], "oz": record["oz"], "llvm": load().version}
            best = choose(sizes, popularity)
            rng = random.Random(f"{SEED} others {record['hash']}")
            rest = [words for words in lists if words != best and len(words) <= LONGEST]
            near = sorted(rest, key=lambda words: (lists[words], -popularity[words], len(words)))[: OTHERS // 2]
            far = rng.sample(rest, min(OTHERS // 2, len(rest)))
            label["oz_bytes"] = sizes.get(OZ)
            label["best"] = {"passes": best, "count": lists[best], "bytes": sizes.get(best)}
            label["others"] = [{"passes": words, "count": lists[words]} for words in dict.fromkeys(near + far)]
            sink.write(json.dumps(label) + "\n")


def choose(sizes: dict[Words, int], popularity: Counter[Words]) -> Words:
    """The label: of the lists with the fewest instructions the one with the fewest bytes, then the most popular.

    -Oz itself is one only where no other list has as few instructions: it is always a candidate, so a
    model that proposes it has proposed nothing; a list that is as good there and wins elsewhere is the
    better answer.
    """
    least = {words: size for words, size in sizes.items() if words != OZ}
    if not least:
        return OZ
    return max(best_lists(least), key=lambda words: (popularity[words], -len(words)))


if __name__ == "__main__":
    sys.exit(main())
