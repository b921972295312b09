"""One greedy answer; and one with a second try after the compiler's feedback."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from secondpass.errors import EngineError, PromptTooLong
from secondpass.prompt import Answer, Form
from secondpass.strategies.base import Attempt, Session


@dataclass(frozen=True, slots=True)
class Single:
    """One greedy answer.

    Attributes:
        code: whether the model writes the IR it expects too.
    """

    code: bool = False

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        form = Form.SHORT if self.code else Form.FAST
        session.judge(session.answer(code=self.code), [0], form=form)


@dataclass(frozen=True, slots=True)
class Feedback:
    """One greedy answer and, where it may not be the best yet, another one after feedback (paper, section 2.3).

    Attributes:
        form: of the feedback. Fast needs no IR of the model's, the others do.
    """

    form: Form = Form.FAST

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        first = greedy(session, self.form)
        if is_final(first):
            return
        code = self.form is not Form.FAST
        with suppress(PromptTooLong):  # no room for a second answer: the first one stands
            sequence = session.after(first, self.form)
            session.judge(session.answer(sequence=sequence, code=code), [0], turn=1, form=self.form)


def greedy(session: Session, form: Form) -> Attempt:
    """The greedy answer that a feedback is to follow, with code where the form speaks of it.

    Raises:
        EngineError: the model was never trained on feedback.
    """
    check_feedback(session)
    session.judge(session.answer(code=form is not Form.FAST), [0], form=form)
    return session.attempts[-1]


def is_final(attempt: Attempt) -> bool:
    """Whether nothing needs to be said about an answer.

    So it is where its count was right, which goes with lists as good as the autotuner's (paper, section 4.1); where the
    IR it wrote is just what the compiler makes; and where the model says that it is sure.
    """
    verdict, answer = attempt.verdict, attempt.verdict.answer
    sure = isinstance(answer, Answer) and bool(answer.sure)
    return verdict.target_right or verdict.bleu == 1 or sure


def check_feedback(session: Session) -> None:
    """Refuse a model that was never trained on feedback.

    Raises:
        EngineError: it was not.
    """
    if not session.engine.takes_feedback:
        raise EngineError(
            f"the model {session.engine.name!r} was not trained on feedback; take a strategy without it, "
            "or a model that was"
        )
