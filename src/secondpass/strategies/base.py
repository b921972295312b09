"""What a strategy has to work with: a function, a model, a compiler, and a budget.

    session = Session(engine, function, sandbox, Budget(inferences=10))
    session.work(Sample(100, temperature=1))      # stops after ten answers
    session.inferences, session.compiles

A strategy asks for answers and sees verdicts. The session counts both, compiles equal lists once, keeps every
attempt, and ends the strategy when the budget is spent: what was found until then is always there. This is
where model and compiler meet; strategies know neither files nor whole programs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence as List
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from secondpass import feedback, ir
from secondpass.engines.base import BranchingSequence, Completion, Engine, Sequence
from secondpass.errors import EngineError, InputError, PromptTooLong
from secondpass.feedback import Verdict
from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.passes import PassList, Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Answer, Form, Malformed, Objective, OptimizePrompt
from secondpass.tuner import search
from secondpass.tuner.coreset import shipped
from secondpass.tuner.finish import Finish, finished
from secondpass.tuner.tails import tails
from secondpass.tuner.work import Item, Searched, SearchUnit, Settings, outcomes

MOST_ANSWERS = 1_000
HOTTEST = 10.0


@dataclass(frozen=True, slots=True)
class Function:
    """One function to be optimised.

    Attributes:
        name: its symbol.
        ir: its normalised text, the model's prompt.
        bitcode: its module.
        objective: what is to be made small; the prompt says so.
    """

    name: str
    ir: str
    bitcode: bytes
    objective: Objective = Objective.INSTRUCTIONS


@dataclass(frozen=True, slots=True)
class Attempt:
    """One answer with its verdict.

    Attributes:
        completion: the model's words and how probable it held them.
        verdict: the compiler's findings.
        sample: which of the model's first answers this is, or follows, from 0.
        turn: 0 for a first answer, 1 for one after feedback, 2 after another one.
        made_by: who made the list, where the model did not: `search`, or `finish` of the answers before it; the
            completion then says what the model would have had to say.
    """

    completion: Completion
    verdict: Verdict
    sample: int
    turn: int = 0
    made_by: str = ""

    @property
    def origin(self) -> str:
        """Where it came from, for people: `answer 3`, `answer 3, try 2`, `search` or `finish`."""
        if self.made_by:
            return self.made_by
        return f"answer {self.sample + 1}" + (f", try {self.turn + 1}" if self.turn else "")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a strategy may spend on one function; None for no limit.

    Attributes:
        inferences: answers.
        compiles: distinct lists.
        seconds: wall time, looked at between answers.
    """

    inferences: int | None = None
    compiles: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the limits; raises InputError."""
        for name in ("inferences", "compiles", "seconds"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise InputError(f"a budget of {limit:g} {name} allows nothing: it must be positive")


def check_answers(n: int) -> None:
    """Refuse a number of answers that is not between 1 and `MOST_ANSWERS`.

    Raises:
        InputError: it is not.
    """
    if not 1 <= n <= MOST_ANSWERS:
        raise InputError(f"{n} answers: ask for 1 to {MOST_ANSWERS}")


def check_sampling(seed: int, top_k: int | None, top_p: float | None) -> None:
    """Refuse a seed that gives no samples, and what samples cannot be cut to.

    Args:
        seed: of the samples.
        top_k: the most probable tokens to sample among; None for all.
        top_p: the share of their probability to sample among; None for all of it.

    Raises:
        InputError: one is out of its range.
    """
    if seed < 0:
        raise InputError(f"seed {seed}: give a number that is not negative")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k {top_k}: give a number of tokens, 1 at least, or leave it out for all")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p {top_p:g}: give a number above 0, up to 1, or leave it out for all tokens")


class Strategy(Protocol):
    """How answers are asked for."""

    def run(self, session: Session) -> None:
        """Work on the session's function until there is nothing left to ask; the budget may end it earlier.

        Raises:
            PromptTooLong: the model cannot even read a part of the function.
            EngineError: the model cannot do what the strategy needs.
        """
        ...


class Spent(Exception):
    """The budget is spent: it ends a strategy, and nobody but `Session.work` needs to know."""


class Session:
    """One function being worked on.

    Args:
        engine: the model.
        function: to be optimised.
        sandbox: compiles.
        budget: what may be spent.
        objective: what searching and finishing make small, where the model is asked for something else; None where it
            is asked for that.
        like: another session of the same engine, function and kind of sandbox: what was read and compiled there is not
            read and compiled again. It counts all the same.
    """

    def __init__(
        self,
        engine: Engine,
        function: Function,
        sandbox: Sandbox,
        budget: Budget | None = None,
        *,
        objective: Objective | None = None,
        like: Session | None = None,
    ) -> None:
        self.engine = engine
        self.function = function
        self.objective = objective or function.objective
        self.attempts: list[Attempt] = []
        """Every attempt, in the order in which it was made."""
        self.inferences = 0
        """Answers asked for."""
        self.unread: PromptTooLong | None = None
        """Why the model has read only a part of the function; None where it has read all, or nothing yet."""
        self.spared = 0.0
        """Seconds of the model and the compiler that were not spent since another session had spent them."""
        self._like = like
        self._sandbox = sandbox
        self._budget = budget or Budget()
        self._lists: set[str] = set()
        self._searched = 0
        self._outcomes: dict[str, Outcome] = {} if like is None else like._outcomes
        self._own: set[str] = set()
        self._reading = 0.0
        self._started = time.monotonic()

    def work(self, strategy: Strategy) -> list[Attempt]:
        """Run a strategy until it ends or the budget is spent; all attempts.

        Raises:
            PromptTooLong: the model cannot even read a part of the function.
            EngineError: the model cannot do what the strategy needs.
        """
        with suppress(Spent):
            strategy.run(self)
        return self.attempts

    @cached_property
    def prompt(self) -> Sequence:
        """The function as the model has read it, once for all answers; of one that is too long, a part (`unread`)."""
        if self._like is not None:
            found, self.unread, self._reading = self._like.prompt, self._like.unread, self._like._reading
            self.spared += self._reading
            return found
        started = time.perf_counter()
        try:
            return self._read()
        finally:
            self._reading = time.perf_counter() - started

    def _read(self) -> Sequence:
        prompt = OptimizePrompt(self.function.ir, self.function.objective)
        try:
            return self.engine.start(prompt)
        except PromptTooLong as error:
            self.unread = error
            return self.engine.start(prompt, abridged=True)

    def after(self, attempt: Attempt, form: Form, sequence: Sequence | None = None) -> Sequence:
        """The prompt, or the sequence that was answered, with an attempt and the feedback on it read too.

        Raises:
            PromptTooLong: it leaves no room for another answer; the attempt then stands.
        """
        answered = self.prompt if sequence is None else sequence
        return answered.extend(attempt.completion, attempt.verdict.feedback(form))

    def branching(self, sequence: Sequence | None = None) -> BranchingSequence:
        """The prompt, or another sequence, for strategies that search.

        Raises:
            EngineError: the engine does not show what the model holds probable.
        """
        found: Any = self.prompt if sequence is None else sequence
        if not hasattr(found, "tree"):
            raise EngineError(
                f"the engine of {self.engine.name!r} does not show probabilities; take a strategy that samples"
            )
        return found

    @property
    def compiles(self) -> int:
        """Distinct lists compiled, a search's included."""
        return len(self._lists) + self._searched

    def affordable(self, answers: int, *, distinct: bool = False) -> int:
        """How many of so many answers the budget allows.

        Args:
            answers: that many are wanted.
            distinct: no two of them have the same list, nor one that was compiled before. Of other answers it is only
                known when they are there how many compiles they cost.

        Raises:
            Spent: none.
        """
        budget = self._budget
        if self._seconds_left() <= 0:
            raise Spent
        left = answers
        if budget.inferences is not None:
            left = min(left, budget.inferences - self.inferences)
        if budget.compiles is not None and (distinct or self.compiles >= budget.compiles):
            left = min(left, budget.compiles - self.compiles)
        if left <= 0:
            raise Spent
        return left

    def _seconds_left(self) -> float:
        if self._budget.seconds is None:
            return math.inf
        return self._budget.seconds - (time.monotonic() - self._started) - self.spared

    def judge(self, completions: List[Completion], samples: List[int], turn: int = 0, form: Form = Form.FAST) -> None:
        """Compile answers and keep them as attempts, as far as the budget allows.

        Args:
            completions: the answers.
            samples: `Attempt.sample` of each.
            turn: `Attempt.turn` of all.
            form: what the verdicts are checked for.

        Raises:
            Spent: none is left to compile with, or only some of the answers could be compiled.
        """
        answers = [Answer.parse(it.text) for it in completions]
        affordable = self._compilable(answers)
        kept = answers[:affordable]
        if form is Form.FAST:
            verdicts = self._verdicts(kept)
        else:
            verdicts = feedback.check_all(kept, self.function.bitcode, self._sandbox, form)
        self.attempts += [Attempt(*it, turn=turn) for it in zip(completions, verdicts, samples)]
        if affordable < len(answers):
            raise Spent

    def answer(
        self,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        sequence: Sequence | None = None,
        code: bool = False,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> list[Completion]:
        """Answers to the prompt, or to another sequence; fewer where the budget allows no more.

        Raises:
            Spent: it allows none.
            EngineError, PromptTooLong: as the engine says.
        """
        n = self.affordable(n)
        sequence = self.prompt if sequence is None else sequence
        completions = sequence.answer(n, temperature, seed, code=code, top_k=top_k, top_p=top_p)
        self.inferences += n
        return completions

    def count(self, answers: int) -> None:
        """Note answers that a strategy has had from the engine itself, as many as were `affordable`."""
        self.inferences += answers

    def search(self, first: List[Words], compiles: int, seed: int) -> None:
        """Let the tuner search, and keep the best lists that it finds as attempts.

        Args:
            first: lists that it tries before its own.
            compiles: lists it may try, as far as the budget allows.
            seed: of the search.

        Raises:
            Spent: the budget allows none.
        """
        compiles = int(min(compiles, self._left()))
        spending = search.Budget(compiles, minimise=False, seconds=self._seconds_left())
        settings = Settings(self.objective, shipped(self.objective), spending, seed)
        key = ir.digest(self.function.ir)
        items = {key: Item(key, lists=tuple(first))}
        for _, outcome in outcomes(items, self._module, SearchUnit(settings), self._sandbox.run):
            searched = isinstance(outcome, Searched)
            self._searched += outcome.compiles if searched else compiles
            kept = [it.passes for it in outcome.found] if searched else first
            for sample, words in enumerate(kept):
                self._keep(PassList.of(*words), sample, "search")

    def finish(self) -> None:
        """Finish the lists tried so far (`tuner.finish`), and keep the best as an attempt where it is a new one.

        Raises:
            Spent: the budget allows no other list.
        """
        left, seconds = self._left(), self._seconds_left()
        if seconds <= 0:
            raise Spent
        usable = (it.verdict.answer for it in self.attempts if it.verdict.target is not None)
        tried = dict.fromkeys(it.passes for it in usable if isinstance(it, Answer))
        if not tried:
            return
        unit = Finish(self.objective, tails(self.objective), seconds, left)
        lists = {self.function.name: [it.words for it in tried]}
        for _, outcome in finished(lists, self._module, unit, self._sandbox):
            if isinstance(outcome, Searched):
                self._searched += outcome.compiles
                if (best := PassList.of(*outcome.found[0].passes)) not in tried:
                    self._keep(best, len(tried), "finish")

    def _module(self, _key: str) -> bytes:
        return self.function.bitcode

    def _keep(self, passes: PassList, sample: int, made_by: str) -> None:
        (verdict,) = self._verdicts([Answer(passes, 0, 0)])
        if verdict.target is not None:
            answer = Answer(passes, verdict.source, verdict.target)
            verdict = replace(verdict, answer=answer)
            self.attempts.append(Attempt(Completion(answer.render(), (), 0.0), verdict, sample, made_by=made_by))

    def _left(self) -> float:
        """How many lists may still be compiled."""
        limit = self._budget.compiles
        left = math.inf if limit is None else limit - self.compiles
        if left <= 0:
            raise Spent
        return left

    def _compilable(self, answers: List[Answer | Malformed]) -> int:
        """How many of the answers can be compiled within the budget; equal lists cost nothing the second time."""
        limit = self._budget.compiles
        for count, answer in enumerate(answers):
            passes = str(answer.passes) if isinstance(answer, Answer) else None
            if passes is not None and passes not in self._lists:
                if limit is not None and self.compiles >= limit:
                    return count
                self._lists.add(passes)
        return len(answers)

    def _verdicts(self, answers: List[Answer | Malformed]) -> list[Verdict]:
        lists = dict.fromkeys(["", *(str(it.passes) for it in answers if isinstance(it, Answer))])
        new = [passes for passes in lists if passes not in self._outcomes]
        if new:
            self._outcomes |= zip(new, self._sandbox.compile(Job(self.function.bitcode, tuple(new))))
        self.spared += sum(self._outcomes[passes].seconds for passes in lists.keys() - self._own - set(new))
        self._own.update(lists)
        source = self._outcomes[""].instructions
        return [
            feedback.judge(it, source, self._outcomes[str(it.passes)] if isinstance(it, Answer) else None)
            for it in answers
        ]
