"""The grammar of an answer, token by token: which tokens may come next, and is there room for them.

    [SURE | TRY_AGAIN] PASSES flag{1..longest_list} COUNT_FROM number DOWN_TO number line-end

The first line belongs to second answers only. A number is made of tokens of digits; it has at most
`LONGEST_NUMBER` digits and no leading zero. An engine that writes only allowed tokens writes only
texts that `prompt.Answer.parse` reads, within the room it has. After the line end the answer is over;
the end marker is not part of it.

The automaton works on token ids. What the words mean, it does not know: they are given to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from secondpass.errors import EngineError
from secondpass.prompt import COUNT_FROM, DOWN_TO, PASSES, SURE, TRY_AGAIN, flags

LONGEST_LIST = 32
"""Passes of one list at most, where a grammar is made without another limit."""
LONGEST_NUMBER = 6
"""Digits of a count at most; no function of a million instructions fits a model's context."""

_LINE_END = "\n"


class Place(IntEnum):
    """Where in an answer the next token stands."""

    FIRST_LINE = 0
    HEAD = 1
    LIST = 2
    SOURCE = 3
    TARGET = 4
    END = 5


@dataclass(frozen=True, slots=True)
class State:
    """A state of the automaton.

    Attributes:
        place: what is being written.
        written: passes of the list so far, or digits of the number; a number that is 0 is full.
    """

    place: Place
    written: int = 0

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self.place is Place.END

    @property
    def shortest(self) -> int:
        """The fewest tokens that complete the answer from here."""
        return _SHORTEST[self.place] - (1 if self.written else 0)


_SHORTEST = {Place.FIRST_LINE: 8, Place.HEAD: 7, Place.LIST: 6, Place.SOURCE: 4, Place.TARGET: 2, Place.END: 0}
"""The fewest tokens from a place of which nothing is written; each needs one of its own, then a closing one."""

FIRST_ANSWER, SECOND_ANSWER = State(Place.HEAD), State(Place.FIRST_LINE)
"""The beginning of an answer to a prompt, and of one to a feedback."""


class Grammar:
    """The automaton over one tokenizer's ids."""

    def __init__(self, tokens: Mapping[str, int], words: Iterable[str], longest_list: int = LONGEST_LIST) -> None:
        """Make the automaton.

        Args:
            tokens: the id of each token's text: the markers, the flags, the line end and every
                token that is made of digits alone. Others may be among them.
            words: the elements a list may hold.
            longest_list: elements of a list at most.

        Raises:
            EngineError: a marker, a word or a digit has no token, or there is no word.
        """
        self._single = {text: _id(tokens, text) for text in (SURE, TRY_AGAIN, PASSES, COUNT_FROM, DOWN_TO, _LINE_END)}
        self._flags = _ids(_id(tokens, flag) for flag in flags(words))
        if not len(self._flags) or longest_list < 1:
            raise EngineError("a grammar needs a word at least, and lists of one element at least")
        self._longest_list = longest_list
        digits = {text: token for text, token in tokens.items() if text.isascii() and text.isdigit()}
        for digit in "0123456789":
            _id(tokens, digit)
        self._zero = tokens["0"]
        self._digits = {token: len(text) for text, token in digits.items()}
        self._first_digits = [token for text, token in digits.items() if text == "0" or text[0] != "0"]
        self._allowed: dict[tuple[State, int], NDArray[np.int64]] = {}

    def allowed(self, state: State, room: int) -> NDArray[np.int64]:
        """The ids that may come next, ascending; none where the answer is complete.

        Args:
            state: what is written so far.
            room: tokens the rest of the answer may have; `state.shortest` at least.
        """
        key = (state, min(room, _PLENTY))
        if key not in self._allowed:
            candidates = [token for token in self._candidates(state) if self.advance(state, token).shortest < room]
            self._allowed[key] = _ids(candidates)
        return self._allowed[key]

    def advance(self, state: State, token: int) -> State:
        """The state after one more token, which must be an allowed one."""
        place, single = state.place, self._single
        if place is Place.FIRST_LINE:
            return FIRST_ANSWER
        if place is Place.HEAD:
            return State(Place.LIST)
        if place is Place.LIST:
            return State(Place.SOURCE) if token == single[COUNT_FROM] else State(Place.LIST, state.written + 1)
        if token == single[DOWN_TO]:
            return State(Place.TARGET)
        if token == single[_LINE_END]:
            return State(Place.END)
        if state.written == 0 and token == self._zero:
            return State(place, LONGEST_NUMBER)
        return State(place, state.written + self._digits[token])

    def forced(self, state: State) -> tuple[int, ...]:
        """The tokens every answer goes on with from here, whatever its reader thinks of them.

        Only what all answers of a batch have at the same place counts: the marker before the list.
        A list that is full has one way to go on too, but the others of its batch have not.
        """
        return (self._single[PASSES],) if state.place is Place.HEAD else ()

    def accepts(self, tokens: Iterable[int], start: State = FIRST_ANSWER) -> bool:
        """Whether these ids are a complete answer."""
        state = start
        for token in tokens:
            if token not in self.allowed(state, _PLENTY):
                return False
            state = self.advance(state, token)
        return state.ended

    def _candidates(self, state: State) -> list[int]:
        """What may come next where there is plenty of room."""
        single, written = self._single, state.written
        match state.place:
            case Place.FIRST_LINE:
                return [single[SURE], single[TRY_AGAIN]]
            case Place.HEAD:
                return [single[PASSES]]
            case Place.LIST:
                more = list(self._flags) if written < self._longest_list else []
                return [*more, single[COUNT_FROM]] if written else more
            case Place.SOURCE | Place.TARGET if not written:
                return [token for token in self._first_digits if self._digits[token] <= LONGEST_NUMBER]
            case Place.SOURCE | Place.TARGET:
                more = [token for token, digits in self._digits.items() if written + digits <= LONGEST_NUMBER]
                return [*more, single[DOWN_TO if state.place is Place.SOURCE else _LINE_END]]
            case Place.END:
                return []


_PLENTY = max(_SHORTEST.values())
"""Room from which on more room allows no more tokens."""


def _ids(tokens: Iterable[int]) -> NDArray[np.int64]:
    return np.array(sorted(tokens), dtype=np.int64)


def _id(tokens: Mapping[str, int], text: str) -> int:
    try:
        return tokens[text]
    except KeyError:
        raise EngineError(
            f"the tokenizer has no token for {text!r}; take the model that belongs to this grammar"
        ) from None
