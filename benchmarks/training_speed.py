"""How fast a preset trains on this machine's processor, by how examples are put into rows.

    python benchmarks/training_speed.py --data build/data [--preset tiny] [--rounds 12] [--threads 1]

Padded rows of examples of like length against packed rows, with one answer an example and with several. The variants
alternate in one run; a round is one optimiser step of each. Prints tokens without padding and answers a CPU second,
and each variant's ratio to the first, round by round: median, quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from secondpass.errors import run_script
from secondpass.model import llama
from secondpass.model.batches import Batch, Plan
from secondpass.model.dataset import Dataset
from secondpass.model.presets import preset
from secondpass.model.trainer import inputs_of

VARIANTS = {
    "padded, 1 answer": {"packing": False, "answers": 1, "counted": 0},
    "packed, 1 answer": {"packing": True, "answers": 1, "counted": 0},
    "padded, 4 answers": {"packing": False, "answers": 4, "counted": 0},
    "packed, 4 answers": {"packing": True, "answers": 4, "counted": 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data, chosen = Dataset(options.data, "train"), preset(options.preset)
    shape = replace(chosen.shape, vocabulary=data.tokenizer.size)
    model = llama.initial(shape, end=None, seed=0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    plans = {name: Plan(data, replace(chosen.recipe, **fields), shape.context) for name, fields in VARIANTS.items()}
    tokens = {name: [] for name in VARIANTS}
    answers = {name: [] for name in VARIANTS}
    for number in range(options.rounds + 1):
        for name in VARIANTS if number % 2 else reversed(VARIANTS):
            batch = plans[name].batch(number, 0)
            began = time.process_time()
            step(model, optimiser, batch)
            seconds = time.process_time() - began
            if number:  # the first one makes room
                tokens[name].append(batch.used / seconds)
                answers[name].append(answers_of(batch) / seconds)
    first = tokens[next(iter(VARIANTS))]
    print(f"{options.preset}, {shape.parameters:,} parameters, {options.threads} threads, {options.rounds} rounds")
    for name in VARIANTS:
        ratios = [one / other for one, other in zip(tokens[name], first)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:20} {statistics.median(tokens[name]):7,.0f} tokens and {statistics.median(answers[name]):5.1f} "
            f"answers a CPU second; {statistics.median(ratios):.2f} times the first ({low:.2f} to {high:.2f})"
        )


def step(model: llama.LlamaForCausalLM, optimiser: torch.optim.Optimizer, batch: Batch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**inputs_of(batch))["loss"]
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def answers_of(batch: Batch) -> int:
    """Answers in a batch."""
    of_answers = batch.answers > 0
    rows = np.broadcast_to(np.arange(len(batch.tokens))[:, None], batch.tokens.shape)[of_answers]
    return len(set(zip(rows.tolist(), batch.examples[of_answers].tolist(), batch.answers[of_answers].tolist())))


if __name__ == "__main__":
    sys.exit(run_script(main))
