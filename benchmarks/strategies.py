"""How long answers take: our engine against transformers' `generate`, and a second answer after Fast and Long Feedback.

    pip install -e ".[train,evaluate]"
    python scripts/unpack_model.py --out build/shipped/checkpoint-0       # the model in the box; or a training's own
    python benchmarks/strategies.py --checkpoint build/shipped/checkpoint-0 --corpus build/corpus [--functions 20]

**Answers.** The same weights in three ways: transformers' `LlamaForCausalLM.generate` in float32, our engine over an
export in float32, and over the int8 export that ships. Each reads a function's prompt and writes 1 greedy or 10 and 100
sampled answers, all variants in turns on each function, so that whatever else the machine does meets all alike; ratios
are of the same function in the same round. `generate` is what a person would write: no grammar, no compiler, until the
model writes its end marker or the context is full. Its answers have other lengths than ours, so time is given a token
too (tokens of answers, without end markers and padding). Goal: 5 times faster at 10 and 100 answers.

**Second answers.** The time from a function to the model's second answer: prompt, first answer, compiler, feedback,
second answer. With Fast Feedback a reader stops after the counts; for Long Feedback the model has to write the IR it
expects too, and reads the compiled IR before it answers again. What the answers say is given: the coreset's first list,
a target count that is off by one, and for Long the IR that the list leaves, as a good model would write it. They are
fed to the network a token a step, as decoding does. So neither training nor luck decides on their lengths, and any
checkpoint will do, one with random weights too. The int8 export writes them. Goal: Fast's second answer 10 times sooner
than Long's.

**Tokens read.** The network is counted along: a feedback turn has to read its own answer and feedback, and nothing of
the prompt again.

Wall time says what a user waits for, processor time what the work costs where the machine is shared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
import transformers

from secondpass import feedback
from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus
from secondpass.engines.base import Completion
from secondpass.engines.grammar import FIRST_ANSWER, LONGEST_LIST
from secondpass.engines.onnx import OnnxEngine, OnnxSequence
from secondpass.engines.onnx_network import Cache, Network
from secondpass.engines.sampling import log_probabilities
from secondpass.errors import run_script
from secondpass.llvm.sandbox import Sandbox
from secondpass.model import llama
from secondpass.model.export import export
from secondpass.model.manifest import TOKENIZER
from secondpass.model.run import read_facts
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import END, Answer, Form, Objective, OptimizePrompt
from secondpass.tuner.coreset import coreset

THEIRS, EXACT, BOXED = "transformers", "onnx float32", "onnx int8"
FAST, LIST, WHOLE = "Fast", "Long, second list", "Long, second code too"
ROOM = LONGEST_LIST + 16
"""Tokens of the longest answer, its counts included."""


class Time(NamedTuple):
    """Seconds."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Time:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Time) -> Time:
        return Time(self.wall - start.wall, self.processor - start.processor)


class Answered(NamedTuple):
    """What one variant took for all the answers to one function, and how many tokens they have."""

    time: Time
    tokens: int


Write = Callable[[list[int], int, int], int]
"""Answers to a prompt's tokens, so many, with a seed: the number of tokens of them all."""


# Answers


@dataclass
class Ours:
    """Our engine."""

    engine: OnnxEngine
    temperature: float

    def __call__(self, prompt: list[int], n: int, seed: int) -> int:
        sequence = read(self.engine, prompt)
        answers = sequence.answer(n, self.temperature if n > 1 else 0.0, seed)
        return sum(len(it.tokens) for it in answers)


@dataclass
class Theirs:
    """`generate`, with the model's whole distribution to sample from, as ours."""

    model: Any
    end: int
    temperature: float

    def __call__(self, prompt: list[int], n: int, seed: int) -> int:
        torch.manual_seed(seed)
        sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            found = self.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                num_return_sequences=n,
                max_new_tokens=self.model.config.max_position_embeddings - len(prompt),
                eos_token_id=self.end,
                pad_token_id=self.end,
                **(sampling if n > 1 else {"do_sample": False}),
            )
        return int((found[:, len(prompt) :] != self.end).sum())


def read(engine: OnnxEngine, prompt: list[int]) -> OnnxSequence:
    """What `engine.start` gives, for a prompt that is tokens already, as `generate` takes it."""
    return engine.read(engine.network.empty(1), prompt, FIRST_ANSWER)


def measure(
    variants: Mapping[str, Write], prompts: Sequence[list[int]], answers: Sequence[int], rounds: int
) -> dict[int, dict[str, list[Answered]]]:
    """What each variant took, by number of answers, an entry a round and function."""
    for write in variants.values():  # the first call makes room
        write(prompts[0], 2, 0)
    found: dict[int, dict[str, list[Answered]]] = {n: {name: [] for name in variants} for n in answers}
    turn = 0
    for number in range(rounds):
        for prompt in prompts:
            for n in answers:
                for name in in_turns(variants, turn):
                    start = Time.now()
                    tokens = variants[name](prompt, n, number)
                    found[n][name].append(Answered(Time.now().since(start), tokens))
                turn += 1
    return found


def in_turns(names: Mapping[str, Any], turn: int) -> Iterator[str]:
    """The names, each turn in the other direction."""
    return iter(names) if turn % 2 else reversed(list(names))


def report_answers(found: Mapping[int, Mapping[str, Sequence[Answered]]]) -> None:
    """A row a number of answers and variant: medians over functions and rounds, quartiles of the ratios."""
    for clock in Time._fields:
        print(f"\nanswers, {clock} time\n")
        print("| answers | | s a function | ms an answer | tokens an answer | ms a token | times faster | a token |")
        print("|---:|---|---:|---:|---:|---:|---:|---:|")
        for n, variants in found.items():
            theirs = variants[THEIRS]
            for name, ours in variants.items():
                seconds = [getattr(it.time, clock) for it in ours]
                each = [1e3 * it / max(1, one.tokens) for it, one in zip(seconds, ours)]
                whole = [getattr(it.time, clock) / own for it, own in zip(theirs, seconds)]
                by_token = [1e3 * getattr(it.time, clock) / max(1, it.tokens) / own for it, own in zip(theirs, each)]
                length = statistics.median(it.tokens / n for it in ours)
                print(
                    f"| {n} | {name} | {spread(seconds, '.3f')} | {1e3 * statistics.median(seconds) / n:.1f} "
                    f"| {length:.1f} | {spread(each, '.2f')} | {spread(whole, '.1f')} | {spread(by_token, '.1f')} |"
                )


# Second answers


class Counted:
    """A network, and how many tokens it was given to read in steps."""

    def __init__(self, network: Network) -> None:
        self.network, self.manifest, self.tokens = network, network.manifest, 0

    def empty(self, branches: int) -> Cache:
        return self.network.empty(branches)

    def step(self, tokens: np.ndarray, prefix: Cache, own: Cache, *, last: int | None = None) -> tuple[Any, Cache]:
        self.tokens += tokens.size
        return self.network.step(tokens, prefix, own, last=last)


@dataclass(frozen=True)
class Function:
    """A function, and what is said about it.

    Attributes:
        prompt: its tokens.
        bitcode: its module.
        first, second: the answers, with their code.
    """

    prompt: list[int]
    bitcode: bytes
    first: Answer
    second: Answer


@dataclass(frozen=True)
class Turn:
    """A function with one feedback.

    Attributes:
        listed: until the second answer's counts were written.
        whole: until all of it was.
        prompt: tokens read of the prompt.
        own: tokens of the first answer and the feedback on it.
        reread: tokens read between the two answers.
    """

    listed: Time
    whole: Time
    prompt: int
    own: int
    reread: int


def described(engine: OnnxEngine, corpus: Corpus, key: str, sandbox: Sandbox) -> Function | None:
    """A function with its answers; None where Long Feedback on it does not fit the context."""
    (passes,) = coreset(Objective.INSTRUCTIONS, 1)
    prompt, bitcode = engine.tokenizer.encode_prompt(OptimizePrompt(corpus.text(key))), corpus.bitcode(key)
    (true,) = feedback.check_all([Answer(passes, 0, 0)], bitcode, sandbox, Form.LONG)
    if true.target is None or true.compiled is None:
        return None
    first = Answer(passes, true.source, true.target + 1, code=true.compiled)
    function = Function(prompt, bitcode, first, replace(first, target=true.target, sure=False))
    code = len(engine.tokenizer.encode_ir(true.compiled))
    return function if len(prompt) + 3 * (code + ROOM) <= engine.context_length else None


def follow(engine: OnnxEngine, function: Function, form: Form, sandbox: Sandbox) -> Turn:
    """Two answers with feedback between them; the engine's network is `Counted`."""
    tokenizer, counted = engine.tokenizer, engine.network
    first, second = (it if form is Form.LONG else replace(it, code=None) for it in (function.first, function.second))
    before, start = counted.tokens, Time.now()
    sequence = read(engine, function.prompt)
    prompt = counted.tokens - before - len(sequence.opening)
    tokens = tokenizer.encode_answer(first)
    write(sequence, tokens[len(sequence.opening) : -1], sequence.own)
    (verdict,) = feedback.check_all([first], function.bitcode, sandbox, form)
    said, before = verdict.feedback(form), counted.tokens
    following = sequence.extend(Completion(first.render(), tuple(tokens), 0.0), said)
    reread = counted.tokens - before
    tokens_of_list = tokenizer.encode_answer(replace(second, code=None))[:-1]
    own = write(following, tokens_of_list, following.own)
    listed = Time.now().since(start)
    write(following, tokenizer.encode_answer(second)[len(tokens_of_list) : -1], own)
    whole = Time.now().since(start)
    return Turn(
        listed, whole, prompt, len(tokens) - len(sequence.opening) + len(tokenizer.encode_feedback(said)), reread
    )


def write(sequence: OnnxSequence, tokens: Sequence[int], own: Cache) -> Cache:
    """Read tokens one a step, each time looking for the most probable next one, as greedy decoding does."""
    for token in tokens:
        logits, own = sequence.engine.network.step(np.array([[token]]), sequence.prefix, own)
        log_probabilities(logits[0, -1]).argmax()
    return own


def measure_turns(
    engine: OnnxEngine, functions: Sequence[Function], sandbox: Sandbox, rounds: int
) -> dict[Form, list[Turn]]:
    """What the second answers took, an entry a round and function."""
    found: dict[Form, list[Turn]] = {Form.FAST: [], Form.LONG: []}
    for form in found:  # the first call makes room
        follow(engine, functions[0], form, sandbox)
    for number in range(rounds):
        for place, function in enumerate(functions):
            for form in found if (number + place) % 2 else reversed(found):
                found[form].append(follow(engine, function, form, sandbox))
    return found


def report_turns(found: Mapping[Form, Sequence[Turn]]) -> None:
    """Seconds to the second answer with their ratios to Fast's, and the tokens that were read."""
    fast, long = found[Form.FAST], found[Form.LONG]
    for clock in Time._fields:
        times = {FAST: [it.whole for it in fast], LIST: [it.listed for it in long], WHOLE: [it.whole for it in long]}
        seconds = {name: [getattr(it, clock) for it in rows] for name, rows in times.items()}
        print(f"\nsecond answers, {clock} time (the compiler's processes' work is in the wall time alone)\n")
        print("| | s to the second answer | times Fast's | of all functions together |\n|---|---:|---:|---:|")
        for name, rows in seconds.items():
            ratios = [own / one for own, one in zip(rows, seconds[FAST])]
            together = sum(rows) / sum(seconds[FAST])
            print(f"| {name} | {spread(rows, '.3f')} | {spread(ratios, '.1f')} | {together:.1f} |")
    print("\ntokens read\n\n| | prompt | of answer, feedback | read in that turn | turns that read just their own |")
    print("|---|---:|---:|---:|---:|")
    for form, turns in found.items():
        medians = (statistics.median(getattr(it, name) for it in turns) for name in ("prompt", "own", "reread"))
        right = sum(it.reread == it.own for it in turns)
        print(f"| {str(form).capitalize()} | {' | '.join(f'{it:,.0f}' for it in medians)} | {right} of {len(turns)} |")


def spread(values: Sequence[float], shape: str) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return f"{middle:{shape}} ({low:{shape}} to {high:{shape}})"


# The command


def main() -> int:
    options = arguments()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name, Sandbox(1) as sandbox:
        boxed, exact = engines(options.checkpoint, Path(name), options.threads)
        corpus = Corpus(options.corpus)
        keys = [entry.hash for entry in corpus.select(options.split)]
        prompts = fitting(boxed, corpus, keys, options.functions)
        if not prompts:
            sys.exit(
                f"{options.corpus}: no function of the split '{options.split}' fits the model; name another --split"
            )
        announce(options, boxed, prompts)
        plain = transformers.LlamaForCausalLM.from_pretrained(options.checkpoint).float().eval()
        variants: dict[str, Write] = {
            THEIRS: Theirs(plain, boxed.tokenizer.id_of(END), options.temperature),
            EXACT: Ours(exact, options.temperature),
            BOXED: Ours(boxed, options.temperature),
        }
        report_answers(measure(variants, prompts, options.answers, options.rounds))
        boxed.network = Counted(boxed.network)
        described_ones = (described(boxed, corpus, key, sandbox) for key in keys)
        functions = [it for _, it in zip(range(options.functions), filter(None, described_ones))]
        if not functions:
            print("\nsecond answers: Long Feedback fits the context for no function; take a model with a longer one")
            return 0
        report_turns(measure_turns(boxed, functions, sandbox, options.rounds))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint-N of a training")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--functions", type=int, default=20, help="the first ones by hash that fit the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def engines(checkpoint: Path, folder: Path, threads: int) -> tuple[OnnxEngine, OnnxEngine]:
    """The engine over the checkpoint's int8 export, and over one in float32."""
    facts, model = read_facts(checkpoint), llama.load(checkpoint)
    tokenizer, loaded = Tokenizer.load(checkpoint / TOKENIZER), []
    for quantised in (True, False):
        out = folder / ("int8" if quantised else "float32")
        export(model, tokenizer, out, name=facts.name, quantised=quantised)
        loaded.append(OnnxEngine.load(out, threads=threads))
    return loaded[0], loaded[1]


def fitting(engine: OnnxEngine, corpus: Corpus, keys: Sequence[str], most: int) -> list[list[int]]:
    """The prompts of the first functions that leave room for the longest answer."""
    prompts: list[list[int]] = []
    for key in keys:
        if len(prompts) == most:
            break
        prompt = engine.tokenizer.encode_prompt(OptimizePrompt(corpus.text(key)))
        if len(prompt) + ROOM <= engine.context_length:
            prompts.append(prompt)
    return prompts


def announce(options: argparse.Namespace, engine: OnnxEngine, prompts: Sequence[list[int]]) -> None:
    """What is measured."""
    manifest, lengths = engine.network.manifest, [len(it) for it in prompts]
    print(
        f"{manifest.name}, {manifest.layers} layers, context {manifest.context_length}; transformers "
        f"{transformers.__version__}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}; "
        f"{options.threads} threads\n{len(prompts)} functions of the split '{options.split}', prompts of "
        f"{min(lengths)} to {max(lengths)} tokens (median {statistics.median(lengths):.0f}), {options.rounds} rounds, "
        f"temperature {options.temperature:g}"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
