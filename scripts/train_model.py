"""Stage 5: the model, trained on the labelled functions.

    python scripts/train_model.py --functions build/functions.jsonl --labels data/labels.jsonl.gz \
        --tokenizer build/tokenizer.json --out build/model --minutes 60 --threads 2

Writes `checkpoint.pt` every few minutes, `best.pt` (the one of the lowest validation loss),
`log.jsonl`, a line every 20 steps, and a copy of the tokenizer. Started again with the same arguments
it goes on where it stopped; with a larger budget it trains on. `--minutes` counts the time in training
steps only, and the learning rate falls as that time is used up.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from secondpass.errors import SecondpassError
from secondpass.model.data import Examples, read_labelled
from secondpass.model.presets import SHAPES, Recipe, shape
from secondpass.model.tokenizer import Tokenizer
from secondpass.model.train import Budget, Record, Trainer


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    try:
        train(options)
    except SecondpassError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--functions", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="small", help="size of the model (%(default)s)")
    parser.add_argument("--minutes", type=float, help="stop after this time in training steps")
    parser.add_argument("--steps", type=int, help="stop after this many steps; gives the same weights every time")
    parser.add_argument("--start-from", type=Path, help="checkpoint whose weights to begin with")
    parser.add_argument("--threads", type=int, default=2, help="of the matrix products (%(default)s)")
    parser.add_argument("--float32", action="store_true", help="no bfloat16, for processors that lack it")
    recipe = parser.add_argument_group("recipe", "see secondpass.model.presets.Recipe")
    for setting in fields(Recipe):
        kind = type(setting.default)
        recipe.add_argument(f"--{setting.name.replace('_', '-')}", type=kind, default=setting.default)
    return parser.parse_args()


def train(options: argparse.Namespace) -> None:
    tokenizer = Tokenizer.load(options.tokenizer)
    recipe = replace(Recipe(), **{setting.name: getattr(options, setting.name) for setting in fields(Recipe)})
    model = shape(options.shape, tokenizer.size)
    sets = {}
    for split in ("train", "valid"):
        sets[split] = Examples(tokenizer, model.context)
        sets[split].add(read_labelled(options.functions, options.labels, split))
        print(f"{split}: {len(sets[split])} functions, {sets[split].left_out} too long for {model.context} tokens")
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, disable=not sys.stdout.isatty()) as progress:
        bar = progress.add_task("training", total=1.0)

        def report(record: Record, spent: float) -> None:
            progress.update(bar, completed=spent)
            progress.console.print(summary(record), highlight=False, soft_wrap=True)

        trainer = Trainer(
            options.out,
            model,
            recipe,
            Budget(steps=options.steps, minutes=options.minutes),
            sets["train"],
            sets["valid"],
            bf16=not options.float32,
            report=report,
        )
        resumed = trainer.resume()
        if options.start_from and not resumed:
            trainer.start_from(options.start_from)
        tokenizer.save(options.out / "tokenizer.json")
        print(f"{model.parameters:,} parameters, {'resumed at' if resumed else 'from'} step {trainer.position.step}")
        trainer.run()


def summary(record: Record) -> str:
    """A record as one line."""
    values = " ".join(f"{name} {value:.4g}" for name, value in record.values.items())
    return f"{record.kind} step {record.step} epoch {record.epoch} {record.seconds:.0f} s {values}"


if __name__ == "__main__":
    sys.exit(main())
