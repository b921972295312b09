"""A model's own first answers on many functions, each checked by the compiler, from several processes.

What a model is told after an answer has to be learnt on answers like its own: whoever was only shown the search's lists
does not know its own mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from secondpass import feedback
from secondpass.corpus.store import Corpus
from secondpass.engines import load_engine
from secondpass.engines.base import Completion
from secondpass.errors import PromptTooLong
from secondpass.feedback import Verdict
from secondpass.files import appending, read_records
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.data import LIST_SECONDS, Labelled
from secondpass.model.manifest import identity
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Answer, Form, OptimizePrompt
from secondpass.workers import answer_all

First = tuple[str, tuple[int, ...], Verdict]
"""A function's hash, the ids of an answer to it without the end marker, and the verdict on the answer."""
Answers = list[tuple[str, tuple[int, ...]]]
"""To one function: texts, and ids without the end marker."""


@dataclass(frozen=True, slots=True)
class Answering:
    """How functions are answered.

    Attributes:
        model: an exported model's directory, or a checkpoint's.
        samples: answers a function; equal ones count once.
        temperature: 0 for the greedy answer.
        seed: of the sampling.
        form: what the verdicts are checked for.
        workers: processes.
        code: whether the answers hold the IR that they expect.
    """

    model: Path
    samples: int
    temperature: float
    seed: int
    form: Form
    workers: int
    code: bool = False

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return load_engine(self.model).tokenizer

    def on(
        self, corpus: Corpus, functions: Sequence[Labelled], kept: Path, progress: Callable[[int, int], None]
    ) -> Iterator[First]:
        """The answers to each function, in the functions' order; none to those that are too long for the model.

        Args:
            corpus: the functions' modules.
            functions: to be answered.
            kept: a file that gets the answers as they come, and has those of a call that was cut short: these are
                not asked for again.
            progress: called with functions done and in all.

        Raises:
            EngineStopped: a process died, or the model raised an error.
            OSError: the file cannot be written.
        """
        facts, records = self._facts(), list(read_records(kept))
        if records[:1] != [facts]:  # there is none, or it is of another model, or was asked for otherwise
            kept.unlink(missing_ok=True)
            records = []
        known: dict[str, Answers] = {
            key: [(text, tuple(tokens)) for text, tokens in answers] for key, answers in records[1:]
        }
        waiting = (
            _Question(it.function, it.ir, corpus.bitcode(it.function), known.get(it.function)) for it in functions
        )
        found: dict[str, list[First]] = {}
        with appending(kept) as keep:
            if not records:
                keep(facts)
            for key, answers, verdicts in answer_all(str(self.model), _Ready(self), waiting, self.workers, _called):
                if key not in known:
                    keep([key, answers])
                found[key] = [(key, tokens, verdict) for (_, tokens), verdict in zip(answers, verdicts)]
                progress(len(found), len(functions))
        for it in functions:
            yield from found[it.function]

    def _facts(self) -> dict[str, Any]:
        """All that answers depend on besides the function, as JSON has it."""
        return {
            **identity(self.model),
            "samples": self.samples,
            "temperature": self.temperature,
            "seed": self.seed,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class _Question:
    """A function, and the answers to it where they are known: texts and ids."""

    key: str
    ir: str
    bitcode: bytes
    answers: Answers | None


def _called(question: _Question) -> str:
    return f"function {question.key}"


@dataclass(frozen=True, slots=True)
class _Ready:
    """What a process needs: called there."""

    answering: Answering

    def __call__(self) -> Callable[[_Question], tuple[str, Answers, list[Verdict]]]:
        """Load the model; what answers a function."""
        return partial(
            _answer,
            self.answering,
            load_engine(self.answering.model, threads=1),
            Sandbox(1, LIST_SECONDS, reproducible=True),
        )


def _answer(it: Answering, engine: Any, sandbox: Sandbox, question: _Question) -> tuple[str, Answers, list[Verdict]]:
    answers = question.answers
    if answers is None:
        found: list[Completion] = []
        with suppress(PromptTooLong):
            prompt = engine.start(OptimizePrompt(question.ir))
            found = prompt.answer(it.samples, it.temperature, it.seed, code=it.code)
        answers = list({each.text: (each.text, each.tokens) for each in found}.values())
    verdicts = feedback.check_all([Answer.parse(text) for text, _ in answers], question.bitcode, sandbox, it.form)
    return question.key, answers, verdicts
