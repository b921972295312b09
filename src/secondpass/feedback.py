"""An answer against the compiler: is the list valid, are the counts true, and what to tell the model.

    verdict = check(answer, module, sandbox)
    reply = verdict.fast_feedback().render()

The paper's section 2.2: the model's claims are checked one by one, and the metrics are what feedback is
made of. `judge` is the same without running anything, for callers that compile in large batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Answer, FastFeedback, Malformed

_LONGEST_FAULT = 120


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the compiler found in one answer.

    Attributes:
        answer: what the model wrote.
        source: the true instruction count of the prompt's function.
        target: the true count after the answer's list; None where the list could not be run.
        fault: why the answer cannot be used, one line; None where it can.
    """

    answer: Answer | Malformed
    source: int
    target: int | None
    fault: str | None

    @property
    def valid(self) -> bool:
        """Whether the list ran and left well-formed IR."""
        return self.fault is None

    @property
    def source_right(self) -> bool:
        """Whether the predicted count before the list is the true one."""
        return isinstance(self.answer, Answer) and self.answer.source == self.source

    @property
    def target_right(self) -> bool:
        """Whether the predicted count after the list is the true one."""
        return isinstance(self.answer, Answer) and self.answer.target == self.target

    @property
    def text(self) -> str:
        """One word or line for people: `right`, `wrong counts`, or the fault."""
        if self.fault is not None:
            return self.fault
        if self.source_right and self.target_right:
            return "right"
        wrong = [name for name, right in (("source", self.source_right), ("target", self.target_right)) if not right]
        return f"wrong {' and '.join(wrong)}"

    def fast_feedback(self) -> FastFeedback:
        """The paper's Fast Feedback: what the list and the counts tell, without any IR."""
        if self.fault is not None:
            return FastFeedback(self.fault)
        return FastFeedback(None, self.source, self.target, self.source_right, self.target_right)


def judge(answer: Answer | Malformed, source: int, outcome: Outcome | None) -> Verdict:
    """The verdict, given what the answer's list did.

    Args:
        answer: what the model wrote.
        source: the true count of the prompt's function.
        outcome: of the answer's list on that function; None for a malformed answer.
    """
    if isinstance(answer, Malformed):
        return Verdict(answer, source, None, _line(answer.fault))
    if outcome is None:
        raise ValueError("a well-formed answer needs the outcome of its list")
    if not outcome.ok:
        return Verdict(answer, source, None, _line(f"{outcome.status}: {outcome.message}"))
    return Verdict(answer, source, outcome.instructions, None)


def check(answer: Answer | Malformed, module: bytes, sandbox: Sandbox) -> Verdict:
    """Run an answer's list on the function it was written for, and compare."""
    return check_all([answer], module, sandbox)[0]


def check_all(answers: Iterable[Answer | Malformed], module: bytes, sandbox: Sandbox) -> list[Verdict]:
    """`check` for several answers to one prompt; equal lists are compiled once.

    Args:
        answers: what the model wrote.
        module: the function's module, text or bitcode, marked for size.
        sandbox: where the lists run.
    """
    answers = list(answers)
    lists = dict.fromkeys(str(answer.passes) for answer in answers if isinstance(answer, Answer))
    before, *after = sandbox.compile(Job(module, ("", *lists)))
    outcomes = dict(zip(lists, after))
    return [
        judge(answer, before.instructions, outcomes[str(answer.passes)] if isinstance(answer, Answer) else None)
        for answer in answers
    ]


def _line(text: str) -> str:
    """One line of bounded length: it goes into a prompt."""
    flat = " ".join(text.split()) or "unknown"
    return flat if len(flat) <= _LONGEST_FAULT else flat[: _LONGEST_FAULT - 3] + "..."
