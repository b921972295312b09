"""The real measure of a model in training: its greedy answers to validation functions, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from secondpass.corpus.store import Corpus
from secondpass.engines.transformers import TransformersEngine
from secondpass.errors import ModelError, PromptTooLong
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.dataset import Dataset
from secondpass.model.manifest import Manifest
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import Objective, OptimizePrompt
from secondpass.strategies.base import Attempt, Function, Session
from secondpass.strategies.single import Single


@dataclass(frozen=True, slots=True)
class GreedyAnswers:
    """Measures a model on the same functions each time.

    Attributes:
        functions: to be answered.
        oz: instruction count of each at -Oz.
        facts: about the model.
        tokenizer: the model's.
    """

    functions: tuple[Function, ...]
    oz: tuple[int, ...]
    facts: Manifest
    tokenizer: Tokenizer

    @classmethod
    def of(cls, corpus: Corpus, validation: Sequence[Dataset], count: int, facts: Manifest) -> GreedyAnswers:
        """Choose functions, evenly spread.

        Args:
            corpus: which the data was made of.
            validation: the data.
            count: how many at most.
            facts: about the model.

        Raises:
            ModelError: the corpus lacks a function of the data, or none was prepared for instructions.
        """
        found: dict[str, str] = {}
        for examples in validation:
            for example in examples:
                text = examples.tokenizer.decode(example.context[: example.prompt_end].tolist())
                prompt = OptimizePrompt.parse(text)
                if isinstance(prompt, OptimizePrompt) and prompt.objective is Objective.INSTRUCTIONS:
                    found[example.function] = prompt.ir
        keys = sorted(found)
        if not keys:
            raise ModelError("the validation data has no prompt for instructions: train without --corpus")
        keys = keys[:: max(1, len(keys) // count)][:count]
        if missing := [key for key in keys if key not in corpus.entries]:
            raise ModelError(f"--corpus lacks the function {missing[0]} of the data: name the corpus it was made of")
        functions = tuple(Function(key, found[key], corpus.bitcode(key)) for key in keys)
        oz = tuple(corpus.entries[key].oz for key in keys)
        return cls(functions, oz, facts, validation[0].tokenizer)

    def __call__(self, model: Any) -> dict[str, float]:
        """Measure.

        Returns:
            `gain`, how much smaller than -Oz all functions together become where -Oz stands by, in per cent; of the
            answers, the shares that are `valid`, and whose counts are right, `source_right` and `target_right`.
        """
        words = load().words
        engine = TransformersEngine.over(model, self.facts, self.tokenizer, words=words)
        attempts: list[Attempt | None] = []
        with Sandbox(1) as sandbox:
            for function in self.functions:
                attempts.append(None)
                with suppress(PromptTooLong):
                    attempts[-1] = Session(engine, function, sandbox).work(Single())[0]
        verdicts = [it.verdict for it in attempts if it is not None]
        reached = [
            oz if it is None or it.verdict.target is None else it.verdict.target for oz, it in zip(self.oz, attempts)
        ]
        saved = sum(max(0, oz - count) for oz, count in zip(self.oz, reached))
        count = max(1, len(verdicts))
        return {
            "gain": 100 * saved / sum(self.oz),
            "valid": sum(it.valid for it in verdicts) / count,
            "source_right": sum(it.source_right for it in verdicts) / count,
            "target_right": sum(it.target_right for it in verdicts) / count,
        }
