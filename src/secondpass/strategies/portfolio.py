"""The coreset in the order that suits the function, as far as the model can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from secondpass.strategies.base import Session, check_answers
from secondpass.tuner.portfolio import shipped


@dataclass(frozen=True, slots=True)
class Portfolio:
    """Lists of the coreset, chosen by how probable the model holds each of them (`tuner.portfolio`).

    The model reads the prompt once and all lists after it, and foretells the counts of those that are tried: every
    list is an answer of the model's. Nothing is drawn, and no list comes twice.

    Attributes:
        n: lists; no more than the portfolio has.
    """

    n: int

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        check_answers(self.n)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        portfolio = shipped(session.function.objective)
        sequence = session.branching()
        tree = sequence.tree()
        begun = tree.begun_with(portfolio.lists)
        probable = [-np.inf if it is None else it.written.log_probability for it in begun]
        chosen = [begun[it] for it in portfolio.order(probable, session.affordable(self.n, distinct=True))]
        paths = tree.finish([it for it in chosen if it is not None])
        completions = [sequence.completion(it.written) for it in paths]
        session.count(len(completions))
        session.judge(completions, range(len(completions)))
