"""Labels, training data, trainings and evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:  # some need extras, and all are slow to load
    from secondpass.evaluate.evaluation import Evaluation
    from secondpass.model.commands import Made
    from secondpass.model.dry_run import Estimate
    from secondpass.model.train import Trained
    from secondpass.tuner.commands import Tuned
    from secondpass.tuner.outcomes import Outcomes

_SCORES = {"compiles": 1, "improved": 2, "gain over -Oz": 3, "of autotuner": 5, "finished": 6}
"""What a terminal has room for, of `Score.cells`; the page has all."""


def print_tuning(result: Tuned, console: Console) -> None:
    """What a tuning run found."""
    it = result.report
    console.print(
        f"{it.functions:,} functions: {it.oz:,} {result.objective} at -Oz, {it.best:,} with the best lists "
        f"({it.gain:.2%} fewer); {it.improved:,} functions improved; {it.compiles:,} compiles"
    )
    if it.before:
        console.print(f"{it.before:,} of them had a label before and were not searched again, whatever the options")
    for key, reason in list(it.failed.items())[:10]:
        console.print(f"given up: {key}: {reason}")
    if len(it.failed) > 10:
        console.print(f"and {len(it.failed) - 10:,} more given up")
    console.print(f"labels: {result.out}")


def print_outcomes(found: Outcomes, console: Console) -> None:
    """What lists do on many functions."""
    oz = sum(found.oz.values())
    first, best = found.gain(1), found.gain(len(found.lists))
    console.print(f"{len(found.values):,} functions, {len(found.lists)} lists, objective {found.objective}")
    console.print(f"gain over -Oz: the first list {first / (oz or 1):.2%}, the best of all {best / (oz or 1):.2%}")


def print_made(made: Made, console: Console) -> None:
    """What training data holds."""
    manifest = made.manifest
    for split, count in manifest.counts.items():
        left_out = manifest.left_out[split]
        console.print(f"{split}: {count:,} examples, {left_out:,} longer than {manifest.context:,} tokens left out")
    console.print(f"prompts of {made.tokens[0]:.0f} tokens on average, {made.tokens[1]:.0f} in the middle")
    console.print(f"training data: {made.out}")


def print_estimate(found: Estimate, console: Console) -> None:
    """What a training needs."""
    table = Table()
    table.add_column(f"{found.preset}, {found.parameters:,} parameters")
    table.add_column("GiB a device", justify="right")
    for name in ("weights", "gradients", "optimiser", "gathered", "activations", "memory"):
        table.add_row("together" if name == "memory" else name, f"{getattr(found, name) / 2**30:.2f}")
    console.print(table)
    passes = f"{found.accumulation:,} forward passes on each of {found.devices:,} devices"
    console.print(f"a step: {found.step_tokens:,} tokens, {passes}")
    console.print(f"activations: {found.method}; a few GiB of torch's own come on top on a GPU")


def print_training(trained: Trained, console: Console) -> None:
    """Where a finished training's checkpoints are."""
    console.print(f"{trained.parameters:,} parameters, {trained.last}; lowest validation loss: {trained.best}")
    console.print(", ".join(f"{name} {value:.4g}" for name, value in trained.validation.items()))


def print_evaluation(found: Evaluation, console: Console) -> None:
    """The table, where it is a part, and where everything lies."""
    if found.scores:
        console.print(f"{found.functions:,} functions, instructions")
        table = Table()
        table.add_column("")
        for heading in _SCORES:
            table.add_column(heading, justify="right")
        for it in found.scores:
            cells = it.cells()
            table.add_row(it.name, *(cells[at] for at in _SCORES.values()))
        console.print(table)
    for model, quality in found.qualities.items():
        console.print(
            f"{model}: {quality.too_long:,} functions are too long. First answers to the others: {quality.valid:.1%} "
            f"valid, source count right {quality.source_right:.1%}, target count right {quality.target_right:.1%}, "
            f"the autotuner's list {quality.exact:.1%}, as good as it {quality.as_good:.1%}"
        )
        if quality.code_parses is not None:
            bleu = "" if quality.bleu is None else f", BLEU {quality.bleu:.2f}"
            console.print(f"{model}: IR that parses {quality.code_parses:.1%}{bleu}")
    console.print(f"report: {found.out / 'report.html'}")
