"""onnxruntime against CTranslate2: the same random Llama model, int8 on both sides.

    pip install -e ".[train]" ctranslate2 transformers
    python benchmarks/engine_runtimes.py --rounds 11

Reads a prompt of 400 random tokens, then writes 40 tokens in 1 and in 10 branches, sampled from the
whole vocabulary at temperature 1 (no grammar: CTranslate2 has none). Each round runs every variant
once, in turns, so that whatever else the machine does meets both alike; ratios are of the same
round. Wall time says what a user waits for, processor time what the work costs where the machine is shared.
The decision that came of it: docs/decisions/0001-onnxruntime.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, Protocol

import ctranslate2
import numpy as np
import onnxruntime
import tokenizers
import transformers

from secondpass.engines.onnx_network import Cache, Network
from secondpass.engines.sampling import log_probabilities
from secondpass.errors import run_script
from secondpass.model import llama
from secondpass.model.export import network, weights_of
from secondpass.model.manifest import Manifest
from secondpass.model.presets import Shape

PROMPT, STEPS, BRANCHES, THREADS = 400, 40, (1, 10), (1, 2)


class Time(NamedTuple):
    """Milliseconds."""

    wall: float
    processor: float

    def __sub__(self, other: Time) -> Time:
        return Time(self.wall - other.wall, self.processor - other.processor)


class Runtime(Protocol):
    """One of the two, with a number of threads."""

    def load(self) -> None: ...
    def prefill(self) -> Time: ...
    def decode(self, branches: int) -> Time: ...


def timed(work: Callable[[], object]) -> Time:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Time((time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3)


class Onnx:
    """Our network, step by step, as the engine uses it."""

    def __init__(self, directory: Path, manifest: Manifest, prompt: np.ndarray, threads: int) -> None:
        self.directory, self.manifest, self.threads = directory, manifest, threads
        self.prompt, self.generator = prompt, np.random.default_rng(0)
        self.load()

    def load(self) -> None:
        self.network = Network(self.directory / "model.onnx", self.manifest, self.threads)

    def _read(self) -> Cache:
        empty = self.network.empty(1)
        return self.network.step(self.prompt[None], empty, empty, last=1)[1]

    def prefill(self) -> Time:
        return timed(self._read)

    def decode(self, branches: int) -> Time:
        prefix = self._read()
        return timed(lambda: self._write(prefix, branches))

    def _write(self, prefix: Cache, branches: int) -> None:
        own, tokens = self.network.empty(branches), np.full((branches, 1), 7, dtype=np.int64)
        for _ in range(STEPS):
            logits, own = self.network.step(tokens, prefix, own)
            cumulative = np.exp(log_probabilities(logits[:, 0])).cumsum(axis=1)
            drawn = self.generator.random(branches) * cumulative[:, -1]
            tokens = (cumulative < drawn[:, None]).sum(axis=1)[:, None]


class CTranslate2:
    """`Generator.generate_batch`: its only way to keep a cache is to write the answers whole."""

    def __init__(self, directory: Path, prompt: np.ndarray, threads: int) -> None:
        self.directory, self.threads = directory / "ctranslate2", threads
        self.prompt = [f"t{token}" for token in prompt]
        self.load()

    def load(self) -> None:
        self.model = ctranslate2.Generator(str(self.directory), compute_type="int8", intra_threads=self.threads)

    def prefill(self) -> Time:
        return timed(lambda: self._write(1, 1))

    def decode(self, branches: int) -> Time:
        return timed(lambda: self._write(branches, STEPS + 1)) - timed(lambda: self._write(branches, 1))

    def _write(self, branches: int, tokens: int) -> None:
        (result,) = self.model.generate_batch(
            [self.prompt],
            num_hypotheses=branches,
            min_length=tokens,
            max_length=tokens,
            sampling_topk=0,
            sampling_temperature=1.0,
            include_prompt_in_result=False,
        )
        assert [len(ids) for ids in result.sequences_ids] == [tokens] * branches


def write_models(sizes: Shape, directory: Path) -> Manifest:
    """The same random weights for both runtimes."""
    model = llama.initial(sizes, end=1, seed=0)
    (directory / "model.onnx").write_bytes(network(sizes, weights_of(model)).SerializeToString())
    model.config.bos_token_id = 0
    model.save_pretrained(directory / "transformers")
    words = tokenizers.models.WordLevel({f"t{token}": token for token in range(sizes.vocabulary)}, unk_token="t0")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), bos_token="t0", eos_token="t1", unk_token="t0"
    ).save_pretrained(directory / "transformers")
    converter = ctranslate2.converters.TransformersConverter(str(directory / "transformers"))
    converter.convert(str(directory / "ctranslate2"), quantization="int8")
    return Manifest(
        name="random",
        context_length=sizes.context,
        layers=sizes.layers,
        key_value_heads=sizes.key_value_heads,
        head_width=sizes.head_width,
        takes_feedback=False,
    )


def measure(runtimes: dict[str, Runtime], rounds: int) -> dict[str, dict[str, list[Time]]]:
    """Times by task and runtime, a time a round; the first round warms up and is dropped."""
    tasks: dict[str, Callable[[Runtime], Time]] = {
        "load": lambda runtime: timed(runtime.load),
        f"read {PROMPT} tokens": lambda runtime: runtime.prefill(),
    }
    for branches in BRANCHES:
        name = f"{STEPS} steps, {branches} branch{'es' * (branches > 1)}"
        tasks[name] = lambda runtime, branches=branches: runtime.decode(branches)
    found: dict[str, dict[str, list[Time]]] = {task: {name: [] for name in runtimes} for task in tasks}
    for number in range(rounds + 1):
        for task, run in tasks.items():
            order = list(runtimes) if number % 2 else list(runtimes)[::-1]
            for name in order:
                spent = run(runtimes[name])
                if number:
                    found[task][name].append(spent)
    return found


def spread(values: list[float]) -> str:
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.1f} ({low:.1f} to {high:.1f})"


def report(threads: int, found: dict[str, dict[str, list[Time]]]) -> None:
    """A table row a task: median and quartiles, and the ratio, above 1 where onnxruntime is faster."""
    for clock in Time._fields:
        print(f"\n{threads} thread{'s' * (threads > 1)}, {clock} time, ms\n")
        print("| | onnxruntime | CTranslate2 | ratio |\n|---|---|---|---|")
        for task, times in found.items():
            onnx, other = ([getattr(one, clock) for one in times[name]] for name in ("onnxruntime", "CTranslate2"))
            ratios = [theirs / ours for ours, theirs in zip(onnx, other, strict=True)]
            print(f"| {task} | {spread(onnx)} | {spread(other)} | {spread(ratios)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--vocabulary", type=int, default=8192)
    options = parser.parse_args()
    sizes = Shape(vocabulary=options.vocabulary)
    prompt = np.random.default_rng(1).integers(2, sizes.vocabulary, PROMPT)
    print(
        f"onnxruntime {onnxruntime.__version__}, CTranslate2 {ctranslate2.__version__}, {sizes.parameters:,} parameters"
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        manifest = write_models(sizes, directory)
        for threads in THREADS:
            runtimes: dict[str, Runtime] = {
                "onnxruntime": Onnx(directory, manifest, prompt, threads),
                "CTranslate2": CTranslate2(directory, prompt, threads),
            }
            report(threads, measure(runtimes, options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
