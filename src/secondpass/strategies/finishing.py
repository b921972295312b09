"""Any strategy, and at last what nearly every list can still be given."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from secondpass.strategies.base import Session, Spent, Strategy


@dataclass(frozen=True, slots=True)
class Finished:
    """A strategy whose lists are finished when it has ended (`tuner.finish`): one list more, where that is better.

    Attributes:
        strategy: which answers to ask for.
    """

    strategy: Strategy

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        with suppress(Spent):
            self.strategy.run(session)
        session.finish()
