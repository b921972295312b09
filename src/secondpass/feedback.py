"""An answer against the compiler: is the list valid, are the counts true, what of the code, what to tell the model.

    verdict = check(answer, module, sandbox, Form.SHORT)
    reply = verdict.feedback(Form.SHORT)

The paper's section 2.2: the model's claims are checked one by one, and the metrics are what feedback is
made of. How much is checked depends on the form of feedback that is wanted. `judge` is what Fast Feedback
needs without running anything, for callers that compile in large batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from secondpass.bleu import corpus_bleu
from secondpass.code_check import CodeCheck, Printed, print_normal_form
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Answer, CodeFinding, Feedback, Form, Malformed

_LONGEST_FAULT = 120
"""Characters of a message in a prompt."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the compiler found in one answer.

    Attributes:
        answer: what the model wrote.
        source: the true instruction count of the prompt's function.
        target: the true count after the answer's list; None where the list could not be run.
        fault: why the answer cannot be used, one line; None where it can.
        checked: the form of feedback whose findings were gathered; what follows is for Short and Long.
        compiled: the normal form of what the list leaves. None where it could not be run, and in a check
            for Short Feedback where there is no code to compare with it.
        code_fault: what LLVM says about the answer's code, one line; None where that parses and verifies
            or there is none.
        bleu: of the answer's code against `compiled`, from 0 to 1; None where one of them is missing.
    """

    answer: Answer | Malformed
    source: int
    target: int | None
    fault: str | None
    checked: Form = Form.FAST
    compiled: str | None = None
    code_fault: str | None = None
    bleu: float | None = None

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

    @property
    def code(self) -> str | None:
        """The answer's code."""
        return self.answer.code if isinstance(self.answer, Answer) else None

    def feedback(self, form: Form) -> Feedback:
        """What to tell the model.

        Where nothing was compiled, Long Feedback has nothing to add to Short and is one.

        Raises:
            ValueError: the check was for a form that says less.
        """
        forms = list(Form)
        if forms.index(form) > forms.index(self.checked):
            raise ValueError(f"the answer was checked for {self.checked} feedback, which says less than {form}")
        if self.fault is not None:
            fast = Feedback(Form.FAST, self.fault)
        else:
            fast = Feedback(Form.FAST, None, self.source, self.target, self.source_right, self.target_right)
        if form is Form.FAST:
            return fast
        if form is Form.SHORT or self.compiled is None:
            return replace(fast, form=Form.SHORT, code=self._code_finding())
        return replace(fast, form=Form.LONG, code=self._code_finding(), compiled=self.compiled)

    def _code_finding(self) -> CodeFinding | None:
        if self.code is None:
            return None
        # Cut, not rounded: 1.00 is for code that does not differ.
        return CodeFinding(self.code_fault, None if self.bleu is None else math.floor(100 * self.bleu))


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


def check(answer: Answer | Malformed, module: bytes, sandbox: Sandbox, form: Form = Form.FAST) -> Verdict:
    """Run an answer's list on the function it was written for, and compare; see `check_all`."""
    return check_all([answer], module, sandbox, form)[0]


def check_all(
    answers: Iterable[Answer | Malformed], module: bytes, sandbox: Sandbox, form: Form = Form.FAST
) -> list[Verdict]:
    """`check` for several answers to one prompt; equal lists are compiled once, equal code is read once.

    Args:
        answers: what the model wrote.
        module: the function's module, text or bitcode, marked for size.
        sandbox: where the lists run and the code is read.
        form: of the feedback that is wanted; no more is looked at than it tells.

    Raises:
        SecondpassError: there is code to compare, and sacrebleu is not installed.
    """
    answers = list(answers)
    lists = dict.fromkeys(str(answer.passes) for answer in answers if isinstance(answer, Answer))
    before, *after = sandbox.compile(Job(module, ("", *lists), keep=form is not Form.FAST))
    outcomes = dict(zip(lists, after))
    verdicts = [
        judge(answer, before.instructions, outcomes[str(answer.passes)] if isinstance(answer, Answer) else None)
        for answer in answers
    ]
    return verdicts if form is Form.FAST else _with_code(verdicts, outcomes, module, sandbox, form)


def _with_code(
    verdicts: list[Verdict], outcomes: Mapping[str, Outcome], module: bytes, sandbox: Sandbox, form: Form
) -> list[Verdict]:
    """The verdicts with what Short and Long Feedback tell besides; `outcomes` are the lists', with bitcode."""
    codes: dict[str, dict[str, None]] = {passes: {} for passes in outcomes}
    for verdict in verdicts:
        if verdict.code is not None:
            codes[_passes(verdict.answer)][verdict.code] = None
    reading = {
        passes: Job(module, tuple(written), each=CodeCheck(outcomes[passes].bitcode))
        for passes, written in codes.items()
        if written
    }
    printing = {
        passes: Job(outcome.bitcode, ("",), each=print_normal_form)
        for passes, outcome in outcomes.items()
        if outcome.bitcode is not None and (codes[passes] or form is Form.LONG)
    }
    done = dict(sandbox.run(dict.fromkeys([*reading.values(), *printing.values()])))
    texts = {passes: it.text for passes, job in printing.items() for it in done[job] if isinstance(it, Printed)}
    found: dict[tuple[str, str | None], tuple[str | None, float | None]] = {}
    for passes, job in reading.items():
        compiled = texts.get(passes)
        for code, outcome in zip(job.lists, done[job]):
            found[passes, code] = (_code_fault(outcome), corpus_bleu([(code, compiled)]) if compiled else None)
    complete: list[Verdict] = []
    for verdict in verdicts:
        passes = _passes(verdict.answer)
        code_fault, bleu = found.get((passes, verdict.code), (None, None))
        complete.append(replace(verdict, checked=form, compiled=texts.get(passes), code_fault=code_fault, bleu=bleu))
    return complete


def _passes(answer: Answer | Malformed) -> str:
    """The answer's list as LLVM reads it; empty for a malformed answer, which has none."""
    return str(answer.passes) if isinstance(answer, Answer) else ""


def _code_fault(outcome: Outcome) -> str | None:
    """What is wrong with a piece of code, given what reading it did."""
    if outcome.ok:
        return None
    # LLVM's own words need no introduction, those of the sandbox do.
    return _line(outcome.message if outcome.status is Status.INVALID else f"{outcome.status}: {outcome.message}")


def _line(text: str) -> str:
    """One line of bounded length: it goes into a prompt."""
    flat = " ".join(text.encode(errors="replace").decode().split()) or "unknown"
    return flat if len(flat) <= _LONGEST_FAULT else flat[: _LONGEST_FAULT - 3] + "..."
