"""Models as ways to find a list for a function, and the processes that ask one in several ways at once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from secondpass.engines import load_engine
from secondpass.errors import EngineStopped, PromptTooLong
from secondpass.evaluate.cases import Case, Trials, Tried
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.manifest import identity
from secondpass.prompt import Answer, Objective, OptimizePrompt
from secondpass.strategies.base import Attempt, Budget, Function, Session, Strategy
from secondpass.workers import answer_all

_EDITION = 5
"""One more whenever a strategy or an engine comes to answer otherwise than before: what was kept is then not read."""


@dataclass(frozen=True)
class Model:
    """A model's answers, as a strategy asks for them.

    Args:
        directory: the exported model.
        strategy: what is asked.
        budget: what it may spend on a function.
        name: for tables.
        workers: processes, each with the model on one core.
    """

    directory: Path
    strategy: Strategy
    name: str
    budget: Budget = field(default_factory=Budget)
    workers: int = 1

    @property
    def facts(self) -> Mapping[str, Any]:
        """See `methods.Method`."""
        settings: Any = self.strategy
        return {
            "model": list(identity(self.directory).values()),
            "too long": "abridged",
            "knowledge": _knowledge(),
            "strategy": type(settings).__name__,
            "settings": asdict(settings),
            "budget": asdict(self.budget),
            "llvm": load().version,
            "edition": _EDITION,
        }

    def trials(self, cases: Sequence[Case]) -> Iterator[Trials]:
        """See `methods.Method`."""
        for ((_, found),) in ask_together(self.name, [self], ((case, (0,)) for case in cases)):
            yield found


def ask_together(
    name: str, ways: Sequence[Model], questions: Iterable[tuple[Case, tuple[int, ...]]]
) -> Iterator[list[tuple[int, Trials]]]:
    """Ask one model in several ways, a function at a time: it is read once for them all, and equal lists compiled once.

    Args:
        name: of them together, for errors.
        ways: strategies of one model, and as many processes.
        questions: functions, each with the places of the ways it is to be asked in.

    Yields:
        A function's trials with the places of their ways; functions as they are done.

    Raises:
        EngineStopped: a model's process died, or raised an error; what was done before has been given out.
    """
    asked = _Asked(ways[0].directory, tuple((it.strategy, it.budget) for it in ways))
    try:
        yield from answer_all(name, asked, questions, ways[0].workers, _called)
    except EngineStopped as error:
        raise EngineStopped(f"{error}; what was measured is kept, the same command goes on", error.exit_code) from error


@dataclass(frozen=True)
class _Asked:
    """What a process of `ask_together` asks the model for."""

    directory: Path
    ways: tuple[tuple[Strategy, Budget], ...]

    def __call__(self) -> Callable[[tuple[Case, tuple[int, ...]]], list[tuple[int, Trials]]]:
        """Load the model; what answers a function."""
        words = load().words
        engine = load_engine(self.directory, words=words, threads=1)
        return partial(self._answer, engine, Sandbox(1, reproducible=True))

    def _answer(
        self, engine: Any, sandbox: Sandbox, question: tuple[Case, tuple[int, ...]]
    ) -> list[tuple[int, Trials]]:
        case, places = question
        function = Function("function", case.text, case.bitcode)
        first = Session(engine, function, sandbox)
        with suppress(PromptTooLong):
            _ = first.prompt  # read here, for all
        tokens = len(engine.tokenizer.encode_prompt(OptimizePrompt(case.text)))
        found: list[tuple[int, Trials]] = []
        for place in places:
            strategy, budget = self.ways[place]
            started = time.perf_counter()
            session = Session(engine, function, sandbox, budget, like=first)
            with suppress(PromptTooLong):
                session.work(strategy)
            seconds = time.perf_counter() - started + session.spared  # nearly as if it had been asked alone
            tried, in_part = tuple(map(_tried, session.attempts)), session.unread is not None
            found.append(
                (place, Trials(case.key, tried, seconds, tokens, in_part, session.inferences, session.compiles))
            )
        return found


def _called(question: tuple[Case, tuple[int, ...]]) -> str:
    case, _ = question
    return f"function {case.key} of {case.project}"


def _knowledge() -> str:
    """What strategies know of the objective besides the model: coreset, winners and portfolio."""
    files = resources.files("secondpass.tuner").joinpath("knowledge_data").iterdir()
    made = sorted(
        (it.name, hashlib.sha256(it.read_bytes()).hexdigest())
        for it in files
        if it.name.startswith(Objective.INSTRUCTIONS)
    )
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()


def _tried(attempt: Attempt) -> Tried:
    verdict, completion = attempt.verdict, attempt.completion
    answer = verdict.answer
    if not isinstance(answer, Answer):
        return Tried((), None, turn=attempt.turn, sample=attempt.sample)
    return Tried(
        answer.passes.words,
        verdict.target,
        answer.source,
        answer.target,
        completion.log_probability,
        len(completion.tokens),
        attempt.turn,
        attempt.sample,
        answer.sure,
        None if answer.code is None else verdict.code_fault is None,
        verdict.bleu,
    )
