"""What the export costs: the int8 network against the float32 model it was made from.

    python benchmarks/export_fidelity.py --checkpoint build/model/checkpoint-2000 --model src/secondpass/model/shipped \
        --data build/data

Reads validation examples with their best answers and compares the two models' distributions of the next
token at every position: how often both hold the same token most probable, how far the true
token's log probability moves, and the Kullback-Leibler divergence. With `--answers N` it also counts on how many of the
first N functions the greedy answers are the same, of the int8 network and of a float32 one exported from the checkpoint
on the spot, against `transformers`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from secondpass.engines.onnx import OnnxEngine
from secondpass.engines.sampling import log_probabilities
from secondpass.engines.transformers import TransformersEngine
from secondpass.errors import run_script
from secondpass.model import llama
from secondpass.model.dataset import SPLITS, Dataset, Example
from secondpass.model.export import export
from secondpass.model.manifest import TOKENIZER
from secondpass.model.run import read_facts
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Answer, OptimizePrompt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="the exported directory")
    parser.add_argument("--data", type=Path, required=True, help="training data with the model's tokenizer")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--count", type=int, default=50, help="examples to read")
    parser.add_argument("--answers", type=int, default=0, help="functions whose greedy answers are compared")
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
    if options.answers:
        compare_answers(options.checkpoint, engine, Dataset(options.data, options.split)[: options.answers])
    return 0


def compare_answers(checkpoint: Path, engine: OnnxEngine, examples: list[Example]) -> None:
    """Print on how many functions the exported networks answer as `transformers` does."""
    reference, facts = TransformersEngine.load(checkpoint), read_facts(checkpoint)
    tokenizer = Tokenizer.load(checkpoint / TOKENIZER)
    with TemporaryDirectory() as folder:
        export(llama.load(checkpoint), tokenizer, Path(folder), name=facts.name, quantised=False)
        exact = OnnxEngine.load(Path(folder))
        same = np.zeros((2, 2), dtype=np.int64)
        for example in examples:
            prompt = OptimizePrompt.parse(tokenizer.decode(example.context[: example.prompt_end].tolist()))
            assert isinstance(prompt, OptimizePrompt)
            (expected,) = reference.start(prompt).answer()
            for row, other in enumerate((engine, exact)):
                (found,) = other.start(prompt).answer()
                one, two = Answer.parse(expected.text), Answer.parse(found.text)
                assert isinstance(one, Answer)
                assert isinstance(two, Answer)
                same[row] += expected.text == found.text, one.passes == two.passes
    for name, (answers, lists) in zip(("int8", "float32"), same / len(examples)):
        print(f"{name}: {answers:.1%} of {len(examples)} greedy answers the same, {lists:.1%} of their lists")


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
    sys.exit(run_script(main))
