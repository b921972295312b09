"""What the model holds most probable: Priority Sampling, also after feedback, and beam search; nothing is drawn."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice

from secondpass.engines.search import Branch, Path, Tree
from secondpass.errors import PromptTooLong
from secondpass.prompt import Form
from secondpass.strategies.base import Session, check_answers
from secondpass.strategies.single import greedy

_AT_ONCE = 16
"""Branches completed together."""


@dataclass(frozen=True, slots=True)
class Priority:
    """Priority Sampling (Grubisic 2024): each new answer expands the most probable prefix not yet expanded.

    The first answer is the greedy one. Every token that might have stood in a list's place instead is a prefix to
    expand, with the probability that the model gives it; an answer is the likeliest such prefix, completed
    greedily.

    Attributes:
        n: answers.
    """

    n: int

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        check_answers(self.n)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        sequence = session.branching()
        for sample, path in enumerate(islice(in_order(sequence.tree(), self.n), self.n)):
            session.count(session.affordable(1, distinct=True))
            session.judge([sequence.completion(path.written)], [sample])


@dataclass(frozen=True, slots=True)
class PriorityAfterFeedback:
    """A greedy answer, then those that Priority Sampling finds after the feedback on it.

    "I am sure!" goes with the list before: whoever asks for more answers has them begin with "Let me try again."

    Attributes:
        n: answers.
        form: of the feedback. Whatever it is, the answers after it are without code.
    """

    n: int
    form: Form = Form.FAST

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        check_answers(self.n)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        first = greedy(session, self.form)
        with suppress(PromptTooLong):  # no room for a second answer: the first one stands
            sequence = session.branching(session.after(first, self.form))
            tree = sequence.tree().trying_again()
            for path in islice(in_order(tree, self.n - 1), self.n - 1):
                session.count(session.affordable(1))
                session.judge([sequence.completion(path.written)], [0], turn=1)


@dataclass(slots=True, order=True)
class _Waiting:
    """A prefix to expand; the most probable one comes first, of equal ones the oldest."""

    cost: float
    number: int
    branch: Branch = field(compare=False)
    path: Path | None = field(default=None, compare=False)


def in_order(tree: Tree, most: int) -> Iterator[Path]:
    """The answers of a tree in the order of Priority Sampling, as many as there are.

    Args:
        tree: of the answers.
        most: how many will be looked at.
    """
    queue = [_Waiting(0.0, 0, tree.root)]
    numbers = count(1)
    while queue:
        if queue[0].path is None:
            # The next ones in the queue are completed too: most will have their turn.
            together = [it for it in heapq.nsmallest(_AT_ONCE, queue) if it.path is None]
            for it, path in zip(together, tree.finish([it.branch for it in together])):
                it.path = path
        path = heapq.heappop(queue).path
        assert path is not None
        yield path
        for choice in path.choices:
            chosen = path.written.tokens[len(choice.branch.written.tokens)]
            order = choice.scores.argsort()[::-1][:most]
            for index in map(int, order):
                if choice.allowed[index] != chosen:
                    branch = tree.taken(choice, index)
                    heapq.heappush(queue, _Waiting(-branch.written.log_probability, next(numbers), branch))


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search of width `n` over lists; all `n` are tried, the most probable first."""

    n: int

    def __post_init__(self) -> None:
        """Check the settings; raises InputError."""
        check_answers(self.n)

    def run(self, session: Session) -> None:
        """See `base.Strategy`."""
        sequence = session.branching()
        n = session.affordable(self.n, distinct=True)
        completions = [sequence.completion(path.written) for path in sequence.tree().beams(n)]
        session.count(len(completions))
        session.judge(completions, range(len(completions)))
