"""What the export costs: the int8 network against the float32 model it was made from.

    python benchmarks/export_fidelity.py --checkpoint build/model/checkpoint-2000 --model src/secondpass/model/shipped \
        --data build/data

Reads validation examples with their best answers and compares the two models' distributions of the next
token at every position: how often both hold the same token most probable, how far the true
token's log probability moves, and the Kullback-Leibler divergence.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from secondpass.engines.onnx import OnnxEngine
from secondpass.engines.sampling import log_probabilities
from secondpass.model import llama
from secondpass.model.dataset import SPLITS, Dataset, Example


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the exported directory")
    parser.add_argument("--data", type=Path, required=True, help="training data with the model's tokenizer")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--count", type=int, default=50, help="examples to read")
    options = parser.parse_args()
    reference, engine = llama.load(options.checkpoint).eval(), OnnxEngine.load(options.model)
    rows = [compare(reference, engine, it) for it in Dataset(options.data, options.split)[: options.count]]
    print("| | positions | same first token | mean change of log p | its 99th percentile | divergence |")
    print("|---|---|---|---|---|---|")
    for part, name in enumerate(("prompts", "answers")):
        agree, change, divergence = np.concatenate([row[part] for row in rows], axis=1)
        print(
            f"| {name} | {agree.size} | {agree.mean():.2%} | {change.mean():.4f} "
            f"| {np.quantile(change, 0.99):.4f} | {divergence.mean():.1e} |"
        )
    return 0


def compare(reference: llama.LlamaForCausalLM, engine: OnnxEngine, example: Example) -> list[np.ndarray]:
    """Agreement, change of the true token's log probability and divergence, in the context and in the answer."""
    tokens = np.concatenate((example.context, example.answers[0]))[None].astype(np.int64)
    with torch.inference_mode():
        logits = reference(torch.from_numpy(tokens)).logits[0]
        expected = torch.log_softmax(logits.double(), dim=-1).numpy()[:-1]
    empty = engine.network.empty(1)
    logits, _ = engine.network.step(tokens, empty, empty)
    found = log_probabilities(logits[0])[:-1]
    positions, true = np.arange(len(found)), tokens[0, 1:]
    agree = expected.argmax(axis=-1) == found.argmax(axis=-1)
    change = np.abs(expected[positions, true] - found[positions, true])
    divergence = (np.exp(expected) * (expected - found)).sum(axis=-1)
    return np.split(np.array([agree, change, divergence]), [len(example.context) - 1], axis=1)


if __name__ == "__main__":
    sys.exit(main())
