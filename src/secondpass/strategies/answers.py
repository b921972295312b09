"""Answers for one function: the first ones (greedy, or sampled), and second tries after Fast Feedback.

This is where model and compiler meet. A strategy knows neither files nor modules: it is given a
function's text and bitcode, and gives back what the model proposed and what came of it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from secondpass import feedback
from secondpass.engines.base import Completion, Engine, Sequence
from secondpass.errors import InputError, PromptTooLong
from secondpass.feedback import Verdict
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Answer, OptimizePrompt

_HOTTEST = 10


@dataclass(frozen=True, slots=True)
class Function:
    """One function to be optimised.

    Attributes:
        name: its symbol.
        ir: its normalised text, the model's prompt.
        bitcode: its module.
    """

    name: str
    ir: str
    bitcode: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer with its verdict.

    Attributes:
        completion: the model's words and how probable it held them.
        verdict: the compiler's findings.
        sample: which of the model's first answers this is, or follows, from 0.
        second: whether it is a second try.
    """

    completion: Completion
    verdict: Verdict
    sample: int
    second: bool = False

    @property
    def origin(self) -> str:
        """Where it came from, for people: `answer 3`, or `second try 3`."""
        return f"{'second try' if self.second else 'answer'} {self.sample + 1}"


class Strategy(Protocol):
    """How answers are asked for."""

    def attempts(self, engine: Engine, function: Function, sandbox: Sandbox) -> list[Attempt]:
        """The attempts on one function, in the order they were made.

        Raises:
            PromptTooLong: the function does not fit the model.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """`samples` first answers, each followed by a second try where feedback is wanted.

    Attributes:
        samples: how many first answers.
        temperature: 0 takes the most probable answer (which `samples` > 1 would only repeat).
        seed: the same seed gives the same answers.
        second_tries: tell the model what was wrong and let it try again, where its count was wrong.
    """

    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    second_tries: bool = True

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        if self.samples < 1:
            raise InputError(f"{self.samples} samples: ask for at least one")
        if not 0 <= self.temperature <= _HOTTEST:
            raise InputError(f"temperature {self.temperature:g}: give a number from 0 to {_HOTTEST}")
        if self.samples > 1 and self.temperature == 0:
            raise InputError(
                f"{self.samples} samples at temperature 0 are the same answer each time;"
                " give a temperature above 0, or one sample"
            )

    def attempts(self, engine: Engine, function: Function, sandbox: Sandbox) -> list[Attempt]:
        """See `Strategy`."""
        prompt = engine.start(OptimizePrompt(function.ir))
        completions = prompt.answer(self.samples, self.temperature, self.seed)
        verdicts = _check(completions, function, sandbox)
        first = [Attempt(*pair, sample) for sample, pair in enumerate(zip(completions, verdicts))]
        if not (self.second_tries and engine.takes_feedback):
            return first
        return first + _second_tries(prompt, first, function, sandbox)


def _second_tries(prompt: Sequence, first: list[Attempt], function: Function, sandbox: Sandbox) -> list[Attempt]:
    """One greedy second answer to each distinct first one whose target count was wrong.

    A right target goes with a list as good as the autotuner's (paper, section 4.1), so nothing is
    asked there.
    """
    again: dict[str, Attempt] = {}
    for attempt in first:
        if not attempt.verdict.target_right:
            again.setdefault(attempt.completion.text, attempt)
    pairs: list[tuple[Attempt, Completion]] = []
    for attempt in again.values():
        reply = attempt.verdict.fast_feedback().render()
        with suppress(PromptTooLong):  # no room for a second answer: the first one stands
            pairs.append((attempt, prompt.extend(attempt.completion, reply).answer()[0]))
    verdicts = _check([completion for _, completion in pairs], function, sandbox)
    return [
        Attempt(completion, verdict, attempt.sample, second=True)
        for (attempt, completion), verdict in zip(pairs, verdicts)
    ]


def _check(completions: list[Completion], function: Function, sandbox: Sandbox) -> list[Verdict]:
    return feedback.check_all((Answer.parse(it.text) for it in completions), function.bitcode, sandbox)
