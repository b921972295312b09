"""A model's own first answers on many functions, each checked by the compiler, from several processes.

What a model is told after an answer has to be learnt on answers like its own: whoever was only shown the search's lists
does not know its own mistakes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondpass import feedback
from secondpass.corpus.store import Corpus
from secondpass.engines import load_engine
from secondpass.errors import PromptTooLong
from secondpass.feedback import Verdict
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.data import Labelled
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Answer, Form, OptimizePrompt

First = tuple[str, tuple[int, ...], Verdict]
"""A function's hash, the ids of an answer to it without the end marker, and the verdict on the answer."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How functions are answered.

    Attributes:
        model: an exported model's directory, or a checkpoint's.
        samples: answers a function; equal ones count once.
        temperature: 0 for the greedy answer.
        seed: of the sampling.
        form: what the verdicts are checked for; the answers have code where it is not Fast.
        workers: processes.
    """

    model: Path
    samples: int
    temperature: float
    seed: int
    form: Form
    workers: int

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return load_engine(self.model).tokenizer

    def on(
        self, corpus: Corpus, functions: Sequence[Labelled], progress: Callable[[int, int], None]
    ) -> Iterator[First]:
        """The answers to each function, in the functions' order; none to those that are too long for the model."""
        start = multiprocessing.get_context("spawn")
        waiting = ((it.function, it.ir, corpus.bitcode(it.function)) for it in functions)
        with ProcessPoolExecutor(self.workers, start, _begin, (self,)) as pool:
            for done, found in enumerate(pool.map(_answer, waiting, chunksize=8), 1):
                yield from found
                progress(done, len(functions))


_worker: dict[str, Any] = {}


def _begin(answering: Answering) -> None:
    _worker.update(answering=answering, engine=load_engine(answering.model, threads=1), sandbox=Sandbox(1))


def _answer(function: tuple[str, str, bytes]) -> list[First]:
    key, ir, bitcode = function
    it: Answering = _worker["answering"]
    try:
        prompt = _worker["engine"].start(OptimizePrompt(ir))
        completions = prompt.answer(it.samples, it.temperature, it.seed, code=it.form is not Form.FAST)
    except PromptTooLong:
        return []
    distinct = list({completion.text: completion for completion in completions}.values())
    answers = [Answer.parse(completion.text) for completion in distinct]
    verdicts = feedback.check_all(answers, bitcode, _worker["sandbox"], it.form)
    return [(key, completion.tokens, verdict) for completion, verdict in zip(distinct, verdicts)]
