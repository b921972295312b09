"""Stage 7: what the model is worth on functions of projects it has never seen.

    python scripts/evaluate_model.py --data build --labels data/labels.jsonl.gz --limit 600 --out docs/results.json

For every function, within the same measure (instructions of the function alone, -Oz as back-up): the
greedy answer, the greedy answer with its second try, ten samples, ten samples with second tries, the
best list of the labels (the simple search of `label_functions.py`), and the first 1 and 10 lists of a coreset: the
lists which together serve the training functions best. Functions the model cannot read count as -Oz.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from rich.progress import track

from secondpass.engines.onnx import OnnxEngine
from secondpass.errors import PromptTooLong
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Answer
from secondpass.strategies.answers import Attempt, Function, Sampling

SAMPLES = 10
TEMPERATURE = 2.0
CORESET = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="folder of an exported model (default: the one in the box)")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="settings are chosen on valid")
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the samples (%(default)s)")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    records = [json.loads(line) for line in (options.data / "functions.jsonl").read_text().splitlines()]
    with gzip.open(options.labels, "rt") as lines:
        labels = {label["hash"]: label for label in map(json.loads, lines)}
    test = [record for record in records if record["split"] == options.split and record["hash"] in labels]
    test = random.Random(options.seed).sample(test, min(options.limit, len(test)))
    train = [labels[it["hash"]] for it in records if it["split"] == "train" and it["hash"] in labels]
    coreset = greedy_cover(train, CORESET)
    engine = OnnxEngine.load(options.model) if options.model else OnnxEngine.load()
    strategies = {
        "greedy": Sampling(),
        "samples": Sampling(SAMPLES, options.temperature, options.seed),
    }
    rows, attempts_of = [], []
    with Sandbox() as sandbox, zipfile.ZipFile(options.data / "functions.zip") as archive:
        for record in track(test, "evaluating", disable=not sys.stderr.isatty()):
            function = Function(record["name"], record["ir"], archive.read(record["hash"]))
            row = {"oz": record["oz"], "labels": labels[record["hash"]]["best"]["count"]}
            lists = [str(PassList.of(*words)) for words in coreset]
            tried = sandbox.compile(Job(function.bitcode, (load().oz_pipeline, *lists)))
            counts = [it.instructions if it.ok else record["oz"] for it in tried]
            assert counts[0] == record["oz"], "the data were made with another LLVM"
            row |= {"coreset 1": counts[1], f"coreset {CORESET}": min(counts[1:])}
            for name, strategy in strategies.items():
                started = time.perf_counter()
                try:
                    attempts = strategy.attempts(engine, function, sandbox)
                except PromptTooLong:
                    attempts = []
                row[f"{name} seconds"] = time.perf_counter() - started
                row[name] = best_of([it for it in attempts if not it.second], record["oz"])
                row[f"{name} and second tries"] = best_of(attempts, record["oz"])
                row["unread"] = not attempts
                attempts_of += [(name, it) for it in attempts]
            rows.append(row)
    summary = {"model": engine.name, "split": options.split, "temperature": options.temperature}
    summary |= summarise(rows, attempts_of)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(summary, indent=1) + "\n")
    print_table(summary)
    return 0


def best_of(attempts: list[Attempt], oz: int) -> int:
    return min([oz, *(it.verdict.target for it in attempts if it.verdict.target is not None)])


def greedy_cover(labels: list[dict], size: int) -> list[list[str]]:
    """The lists which together take most off the training functions, each chosen after the ones before.

    Known counts of a list are those among a function's labels; where a list was not kept for a
    function it counts as -Oz there, so the cover is a lower bound of what a full one could do.
    """
    gains: dict[tuple[str, ...], np.ndarray] = {}
    for index, label in enumerate(labels):
        for entry in [label["best"], *label["others"]]:
            if entry["count"] < label["oz"]:
                row = gains.setdefault(tuple(entry["passes"]), np.zeros(len(labels), np.int32))
                row[index] = label["oz"] - entry["count"]
    covered, chosen = np.zeros(len(labels), np.int32), []
    frequent = sorted(gains, key=lambda words: -int(gains[words].sum()))[:2000]
    for _ in range(size):
        best = max(frequent, key=lambda words: int(np.maximum(gains[words], covered).sum()))
        covered = np.maximum(covered, gains[best])
        chosen.append(list(best))
    return chosen


def summarise(rows: list[dict], attempts: list[tuple[str, Attempt]]) -> dict:
    oz = sum(row["oz"] for row in rows)
    label_gain = oz - sum(min(row["oz"], row["labels"]) for row in rows)
    table = {}
    for name in (
        "greedy", "greedy and second tries", "samples", "samples and second tries", "coreset 1",
        f"coreset {CORESET}", "labels",
    ):  # fmt: skip
        gain = oz - sum(min(row["oz"], row[name]) for row in rows)
        table[name] = {
            "functions improved": sum(row[name] < row["oz"] for row in rows) / len(rows),
            "gain over -Oz": gain / oz,
            "share of the labels' gain": gain / label_gain,
        }
    greedy = [it.verdict for name, it in attempts if name == "greedy" and not it.second]
    return {
        "llvm": load().version,
        "functions": len(rows),
        "unread": sum(row["unread"] for row in rows),
        "samples": SAMPLES,
        "results": table,
        "greedy answers": {
            "valid": float(np.mean([it.valid for it in greedy])),
            "well-formed": float(np.mean([isinstance(it.answer, Answer) for it in greedy])),
            "source count right": float(np.mean([it.source_right for it in greedy])),
            "target count right": float(np.mean([it.target_right for it in greedy])),
        },
        "median seconds a function": {
            name: float(np.median([row[f"{name} seconds"] for row in rows])) for name in ("greedy", "samples")
        },
    }


def print_table(summary: dict) -> None:
    print(f"{summary['functions']} functions, {summary['unread']} too long for the model, {summary['model']}")
    print(f"{'':28} {'improved':>10} {'gain':>8} {'of labels':>10}")
    for name, row in summary["results"].items():
        improved, gain, share = row.values()
        print(f"{name:28} {improved:>10.1%} {gain:>8.2%} {share:>10.1%}")
    print(json.dumps(summary["greedy answers"]), json.dumps(summary["median seconds a function"]))


if __name__ == "__main__":
    sys.exit(main())
