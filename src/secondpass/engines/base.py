"""What an engine offers: prompts in, answers out, feedback appended to what was read already.

    sequence = engine.start(OptimizePrompt(ir))
    first, *others = sequence.answer(n=10, temperature=0.8, seed=1)
    second = sequence.extend(first, feedback).answer()[0]

Every engine has `Engine` and `Sequence`. One that shows the model's probabilities step by step has
`SteppedSequence`; one that branches, which search strategies need, `BranchingSequence`.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from secondpass.engines.sampling import Written
from secondpass.engines.search import Tree
from secondpass.prompt import Feedback, OptimizePrompt


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer.

    Attributes:
        text: the answer, without the end marker; `prompt.Answer.parse` reads it.
        tokens: its token ids in the engine's vocabulary.
        log_probability: natural logarithm of the answer's probability under the model at temperature
            1: the sum over its tokens of the model's own distribution, not renormalised over what the
            grammar allows. Answers of different lengths and temperatures are comparable by it.
    """

    text: str
    tokens: tuple[int, ...]
    log_probability: float


class Sequence(Protocol):
    """A prompt that was read, ready to be answered. Immutable: answering changes nothing."""

    @property
    def prefilled_tokens(self) -> int:
        """Tokens the model had to read to make this sequence from the one before."""
        ...

    def answer(
        self,
        n: int = 1,
        temperature: float = 0.0,
        seed: int = 0,
        *,
        code: bool = False,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> list[Completion]:
        """Write answers.

        Args:
            n: how many.
            temperature: 0 for the most probable token at each step (all n answers are then the same),
                else the temperature to sample at.
            seed: of the sampling. Answer k is a function of the sequence, the temperature, the seed,
                `code`, `top_k`, `top_p` and k alone: neither n nor what ran before changes it.
            code: write the IR that the list should leave too, as long as there is room, which takes
                many times as long; without it an answer ends with its counts.
            top_k: sample among so many of the most probable tokens of those the grammar allows; None for all.
            top_p: and of these among the fewest that hold this share of their probability at the temperature
                (nucleus sampling), above 0, 1 at most; None for all. Greedy answers have no use for either.

        Raises:
            EngineError: n is not positive, the temperature or the seed is negative, `top_k` or `top_p` is out of
                its range, or the model writes no code.
            PromptTooLong: there is room for an answer, but not for one with code.
        """
        ...

    def extend(self, completion: Completion, feedback: Feedback) -> Self:
        """The sequence that goes on with an answer and the feedback on it, ready for the next answer.

        The state of what was read is kept; only the answer and the feedback are read anew.

        Raises:
            PromptTooLong: what comes out leaves no room for an answer.
        """
        ...

    def second_answers(self, said: List[tuple[Completion, Feedback]]) -> list[Completion | None]:
        """The greedy answer after each of several feedbacks, all written together, which takes a part of the time.

        Args:
            said: answers to this sequence, each with the feedback on it.

        Returns:
            What `extend` and then `answer` would give, without code and up to the rounding of the matrix products; None
            where there is no room for an answer.
        """
        ...


class SteppedSequence(Sequence, Protocol):
    """A sequence that can be answered a token at a time."""

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        ...

    def allowed(self) -> NDArray[np.int64]:
        """The token ids that may come next, ascending; none where the answer is complete."""
        ...

    def next_log_probabilities(self, *, allowed_only: bool = False) -> NDArray[np.float64]:
        """The logarithm of each token's probability to come next, at temperature 1; (vocabulary,).

        Args:
            allowed_only: minus infinity for tokens the grammar forbids. The others are not
                renormalised: they are the model's own, as in `Completion.log_probability`.
        """
        ...

    def append(self, tokens: Iterable[int]) -> Self:
        """The sequence with more of its answer written. `answer` then writes the rest.

        Raises:
            EngineError: the grammar forbids one of the tokens.
        """
        ...


class BranchingSequence(Sequence, Protocol):
    """A sequence whose answers can be had in the order of their probability."""

    def tree(self) -> Tree:
        """All answers there can be, sharing what they have in common."""
        ...

    def completion(self, written: Written) -> Completion:
        """A complete answer of `tree`'s."""
        ...


class Engine(Protocol):
    """A model that reads prompts and writes answers."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of prompt, answers and feedback together, at most."""
        ...

    @property
    def takes_feedback(self) -> bool:
        """Whether it was trained to answer again after a feedback."""
        ...

    @property
    def writes_code(self) -> bool:
        """Whether it was trained to write code after the counts; `Sequence.answer` can then be asked for it."""
        ...

    def start(self, prompt: OptimizePrompt, *, abridged: bool = False) -> Sequence:
        """Read a prompt, once for all the answers to it.

        Args:
            prompt: what to read.
            abridged: of a prompt that is too long read the beginning and the end. An answer's counts are then of no
                use, but its list is as good as any: the compiler says what it does.

        Raises:
            PromptTooLong: it leaves no room for an answer, and was not to be abridged.
        """
        ...
