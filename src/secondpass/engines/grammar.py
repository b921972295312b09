"""The grammar of an answer, token by token: which tokens may come next, and is there room for them.

    [SURE | TRY_AGAIN] PASSES flag{1..longest_list} COUNT_FROM number DOWN_TO number line-end
    [CODE_OPEN code-token{0..} CODE_CLOSE]

The first line belongs to second answers only. A number is made of tokens of digits; it has at most
`LONGEST_NUMBER` digits and no leading zero. After the line end the answer is over, or, in a state that
asks for code (`State.with_code`), code follows: any tokens but the reserved ones, as many as there is
room for. An engine that writes only allowed tokens writes only texts that `prompt.Answer.parse` reads,
within the room it has. The end marker is not part of an answer.

The automaton works on token ids. What the words mean, it does not know: they are given to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from secondpass.errors import EngineError
from secondpass.llvm.passes import Words
from secondpass.prompt import CODE_CLOSE, CODE_OPEN, COUNT_FROM, DOWN_TO, PASSES, SURE, TRY_AGAIN, flags

LONGEST_LIST = 32
"""Passes of one list at most, where a grammar is made without another limit."""
LONGEST_NUMBER = 6
"""Digits of a count at most; no function of a million instructions fits a model's context."""

_LINE_END = "\n"
_SINGLE = (SURE, TRY_AGAIN, PASSES, COUNT_FROM, DOWN_TO, _LINE_END, CODE_OPEN, CODE_CLOSE)


class Place(IntEnum):
    """Where in an answer the next token stands; `COUNTED` is behind the counts, where code may begin."""

    FIRST_LINE = 0
    HEAD = 1
    LIST = 2
    SOURCE = 3
    TARGET = 4
    COUNTED = 5
    CODE = 6
    END = 7


@dataclass(frozen=True, slots=True)
class State:
    """A state of the automaton.

    Attributes:
        place: what is being written.
        written: passes of the list so far, or digits of the number; a number that is 0 is full.
        code: whether code follows the counts.
    """

    place: Place
    written: int = 0
    code: bool = False

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self.place is Place.END

    @property
    def shortest(self) -> int:
        """The fewest tokens that complete the answer from here."""
        fewest = _SHORTEST[self.place] - (1 if self.written else 0)
        return fewest + _SHORTEST[Place.COUNTED] if self.code and self.place < Place.COUNTED else fewest

    def with_code(self) -> State:
        """The same place in an answer whose counts are followed by code; one that ended with them goes on."""
        if self.code:
            return self
        return replace(self, place=Place.COUNTED if self.ended else self.place, code=True)


_SHORTEST = {
    Place.FIRST_LINE: 8,
    Place.HEAD: 7,
    Place.LIST: 6,
    Place.SOURCE: 4,
    Place.TARGET: 2,
    Place.COUNTED: 2,
    Place.CODE: 1,
    Place.END: 0,
}
"""The fewest tokens from a place of which nothing is written, without code where the counts are still to come.

A place needs a token of its own, then a closing one.
"""

FIRST_ANSWER, SECOND_ANSWER = State(Place.HEAD), State(Place.FIRST_LINE)
"""The beginning of an answer to a prompt, and of one to a feedback."""


class Grammar:
    """The automaton over one tokenizer's ids."""

    def __init__(
        self,
        tokens: Mapping[str, int],
        words: Iterable[str],
        longest_list: int = LONGEST_LIST,
        code_tokens: Iterable[int] = (),
    ) -> None:
        """Make the automaton.

        Args:
            tokens: the id of each token's text: the markers, the flags, the line end and every
                token that is made of digits alone. Others may be among them.
            words: the elements a list may hold.
            longest_list: elements of a list at most.
            code_tokens: the ids that code is made of, none of them reserved; needed for answers with code.

        Raises:
            EngineError: a marker, a word or a digit has no token, or there is no word.
        """
        self._single = {text: _id(tokens, text) for text in _SINGLE}
        words = tuple(words)
        self._words = {word: _id(tokens, flag) for word, flag in zip(words, flags(words))}
        self._flags = _ids(self._words.values())
        if not len(self._flags) or longest_list < 1:
            raise EngineError("a grammar needs a word at least, and lists of one element at least")
        self._longest_list = longest_list
        digits = {text: token for text, token in tokens.items() if text.isascii() and text.isdigit()}
        for digit in "0123456789":
            _id(tokens, digit)
        self._zero = tokens["0"]
        self._digits = {token: len(text) for text, token in digits.items()}
        self._first_digits = [token for text, token in digits.items() if text == "0" or text[0] != "0"]
        self._code = _ids([*code_tokens, self._single[CODE_CLOSE]])
        self._allowed: dict[tuple[State, int], NDArray[np.int64]] = {}

    @property
    def ample(self) -> int:
        """Room for an answer without code, from which on more room allows no more answers."""
        longest = self._longest_list + 2 * LONGEST_NUMBER + len(_SINGLE)
        return longest + _PLENTY

    def allowed(self, state: State, room: int) -> NDArray[np.int64]:
        """The ids that may come next, ascending; none where the answer is complete.

        Args:
            state: what is written so far.
            room: tokens the rest of the answer may have; `state.shortest` at least.
        """
        key = (state, min(room, _PLENTY))
        found = self._allowed.get(key)
        if found is None:
            found = self._allowed[key] = self._find_allowed(*key)
        return found

    def advance(self, state: State, token: int) -> State:
        """The state after one more token, which must be an allowed one."""
        place, single, code = state.place, self._single, state.code
        if place >= Place.COUNTED:
            return State(Place.END if token == single[CODE_CLOSE] else Place.CODE, 0, code)
        if place is Place.FIRST_LINE:
            return State(Place.HEAD, 0, code)
        if place is Place.HEAD:
            return State(Place.LIST, 0, code)
        if place is Place.LIST:
            if token == single[COUNT_FROM]:
                return State(Place.SOURCE, 0, code)
            return State(Place.LIST, state.written + 1, code)
        if token == single[DOWN_TO]:
            return State(Place.TARGET, 0, code)
        if token == single[_LINE_END]:
            return State(Place.COUNTED if code else Place.END, 0, code)
        if state.written == 0 and token == self._zero:
            return State(place, LONGEST_NUMBER, code)
        return State(place, state.written + self._digits[token], code)

    def tokens_of(self, passes: Words) -> tuple[int, ...] | None:
        """A whole list as ids, and the marker behind it; None where no answer can hold the list."""
        if not 0 < len(passes) <= self._longest_list or not self._words.keys() >= set(passes):
            return None
        return (*(self._words[word] for word in passes), self._single[COUNT_FROM])

    @property
    def try_again(self) -> int:
        """The first line of an answer to a feedback that is not sure of the list before."""
        return self._single[TRY_AGAIN]

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

    def _find_allowed(self, state: State, room: int) -> NDArray[np.int64]:
        if state.place is Place.CODE and room > state.shortest:
            return self._code  # thousands of tokens, none of which brings the end nearer or puts it off
        return _ids(token for token in self._candidates(state) if self.advance(state, token).shortest < room)

    def _candidates(self, state: State) -> list[int]:
        """What may come next where there is plenty of room, but for the tokens of code."""
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
            case Place.COUNTED:
                return [single[CODE_OPEN]]
            case Place.CODE:
                return [single[CODE_CLOSE]]
            case Place.END:
                return []


_PLENTY = SECOND_ANSWER.with_code().shortest
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
