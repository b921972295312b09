"""Feedback again and again, until the model is sure (paper, Fig. 7)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from secondpass.engines.base import Sequence
from secondpass.errors import InputError, PromptTooLong
from secondpass.prompt import Form
from secondpass.strategies.base import HOTTEST, Session, check_sampling
from secondpass.strategies.single import check_feedback, is_final

_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class Iterate:
    """A first answer, then up to `steps` further ones, each after the feedback on the one before.

    Attributes:
        steps: feedbacks at most.
        temperature: 0 for greedy answers.
        seed: of the sampling, where the temperature is above 0.
        form: of the feedback.
        starts: how many times from the beginning; more than one needs a temperature.
        top_k, top_p: as in `sampling.Sample`; either needs a temperature.
    """

    steps: int = 5
    temperature: float = 0.0
    seed: int = 0
    form: Form = Form.FAST
    starts: int = 1
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        if not 1 <= self.steps <= _MOST_STEPS:
            raise InputError(f"{self.steps} feedback steps: ask for 1 to {_MOST_STEPS}")
        if not 0 <= self.temperature <= HOTTEST:
            raise InputError(f"temperature {self.temperature:g}: give a number from 0 to {HOTTEST:g}")
        if self.starts < 1 or (self.starts > 1 and not self.temperature):
            raise InputError(f"{self.starts} starts: ask for at least one; for several give a temperature above 0")
        check_sampling(self.seed, self.top_k, self.top_p)
        if not self.temperature and (self.top_k is not None or self.top_p is not None):
            raise InputError(
                "greedy iteration does not sample: leave top_k and top_p out, or give a temperature above 0"
            )

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        check_feedback(session)
        prompt = session.prompt
        for start in range(self.starts):
            with suppress(PromptTooLong):  # no room for the feedback and another answer: what is there stands
                self._follow(session, prompt, start)

    def _follow(self, session: Session, sequence: Sequence, start: int) -> None:
        code = self.form is not Form.FAST
        for turn in range(1 + self.steps):
            seed = self.seed + start * (1 + self.steps) + turn
            completions = session.answer(
                1, self.temperature, seed, sequence=sequence, code=code, top_k=self.top_k, top_p=self.top_p
            )
            session.judge(completions, [start], turn=turn, form=self.form)
            last = session.attempts[-1]
            if is_final(last) or turn == self.steps:
                return
            sequence = session.after(last, self.form, sequence)
