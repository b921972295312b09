"""The model's answers as the beginning of a search: it says where to look, the tuner looks around there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from secondpass.errors import InputError
from secondpass.llvm.passes import Words
from secondpass.prompt import Answer
from secondpass.strategies.base import Session, check_answers
from secondpass.strategies.tree import in_order

_MOST_COMPILES = 100_000


@dataclass(frozen=True, slots=True)
class Search:
    """The tuner's search (`tuner.search`), which meets the model's most probable lists first.

    Attributes:
        compiles: lists tried, those of the model included.
        answers: of the model.
        seed: of the search.
    """

    compiles: int
    answers: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        if not 1 <= self.compiles <= _MOST_COMPILES:
            raise InputError(f"{self.compiles} compiles: ask for 1 to {_MOST_COMPILES:,}")
        check_answers(self.answers)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        sequence = session.branching()
        answers = session.affordable(min(self.answers, self.compiles), distinct=True)
        proposed: list[Words] = []
        for path in islice(in_order(sequence.tree(), answers), answers):
            answer = Answer.parse(sequence.completion(path.written).text)
            if isinstance(answer, Answer):
                proposed.append(answer.passes.words)
        session.count(answers)
        session.search(proposed, self.compiles, self.seed)
