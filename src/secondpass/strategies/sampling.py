"""Many answers at once: sampled first answers, and sampled or greedy ones after feedback (paper, Fig. 6)."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as List
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from secondpass.engines.base import Completion, Sequence
from secondpass.errors import InputError, PromptTooLong
from secondpass.prompt import Form
from secondpass.strategies.base import HOTTEST, Attempt, Session, check_answers, check_sampling
from secondpass.strategies.single import check_feedback, greedy, is_final

_AT_ONCE = 100
"""Answers decoded together; between two such batches the time is looked at."""
_FOLLOWED_AT_ONCE = 20
"""The same for second answers."""


class Then(StrEnum):
    """What follows the answers to the prompt."""

    NOTHING = "nothing"
    """The first answers are sampled, and that is all."""
    GREEDY = "greedy"
    """The first answers are sampled; each that may not be the best yet is followed by a greedy one after feedback."""
    SAMPLED = "sampled"
    """The first answer is greedy; sampled ones follow after the feedback on it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """`n` sampled answers.

    Attributes:
        n: answers; with `Then.GREEDY` first answers, each of which may be followed by another one.
        temperature: to sample at.
        seed: the same seed gives the same answers.
        then: what follows.
        form: of the feedback.
        top_k: samples take one of so many most probable tokens at each step; None for any.
        top_p: and of these one of the fewest that hold this share of the probability; None for any.
    """

    n: int
    temperature: float = 1.0
    seed: int = 0
    then: Then = Then.NOTHING
    form: Form = Form.FAST
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        check_answers(self.n)
        if not 0 < self.temperature <= HOTTEST:
            raise InputError(
                f"temperature {self.temperature:g}: give a number above 0, up to {HOTTEST:g}; "
                "at 0 all samples would be the greedy answer, which the strategy 'single' gives"
            )
        check_sampling(self.seed, self.top_k, self.top_p)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        if self.then is Then.SAMPLED:
            self._sampled_after_feedback(session)
            return
        if self.then is Then.GREEDY:
            check_feedback(session)
        code = self.then is not Then.NOTHING and self.form is not Form.FAST
        form = self.form if code else Form.FAST
        for start, completions in self._drawn(session, self.n, code):
            session.judge(completions, range(start, start + len(completions)), form=form)
        if self.then is Then.GREEDY:
            self._greedy_after_feedback(session)

    def _drawn(
        self, session: Session, n: int, code: bool, sequence: Sequence | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Samples in batches, each with the number of its first; a batch's seed is its own, whatever n is."""
        for start in range(0, n, _AT_ONCE):
            more = min(_AT_ONCE, n - start)
            completions = session.answer(
                more,
                self.temperature,
                self.seed + start,
                sequence=sequence,
                code=code,
                top_k=self.top_k,
                top_p=self.top_p,
            )
            yield start, completions

    def _greedy_after_feedback(self, session: Session) -> None:
        """One greedy second answer to each distinct first one that may not be the best yet."""
        waiting: dict[str, Attempt] = {}
        for attempt in session.attempts:
            if not is_final(attempt):
                waiting.setdefault(attempt.completion.text, attempt)
        if self.form is Form.FAST:
            self._together(session, list(waiting.values()))
            return
        for attempt in waiting.values():
            with suppress(PromptTooLong):  # no room for a second answer: the first one stands
                sequence = session.after(attempt, self.form)
                completions = session.answer(sequence=sequence, code=True)
                session.judge(completions, [attempt.sample], turn=1, form=self.form)

    def _together(self, session: Session, waiting: List[Attempt]) -> None:
        """The same without code, several at a time."""
        for start in range(0, len(waiting), _FOLLOWED_AT_ONCE):
            some = waiting[start : start + _FOLLOWED_AT_ONCE]
            some = some[: session.affordable(len(some))]
            found = session.prompt.second_answers([(it.completion, it.verdict.feedback(self.form)) for it in some])
            answered = [(completion, it.sample) for it, completion in zip(some, found) if completion is not None]
            session.count(len(answered))
            session.judge([it for it, _ in answered], [sample for _, sample in answered], turn=1)

    def _sampled_after_feedback(self, session: Session) -> None:
        code = self.form is not Form.FAST
        first = greedy(session, self.form)
        with suppress(PromptTooLong):
            sequence = session.after(first, self.form)
            for _, completions in self._drawn(session, self.n - 1, code, sequence):
                session.judge(completions, [0] * len(completions), turn=1, form=self.form)
