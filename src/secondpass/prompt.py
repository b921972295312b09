"""The text formats between model and compiler: Task Optimize, its answer, Fast Feedback.

Every form is a frozen value with `render`, and a parser that is its exact inverse. A malformed
answer parses to `Malformed`, a value that says what was wrong. The forms follow the paper (sections
2.1 to 2.3); the words are ours. The answer's order lets a reader stop right after the counts:

    <|optimize|>instructions                  the objective
    define i32 @f(i32 %0) { ... }             unoptimised IR (`ir.normalise`)
    <|answer|>passes: -sroa -simplifycfg
    count from 27 down to 11
    <|feedback|>valid                         what the compiler found
    count from 27 down to 13
    source right, target wrong
    <|answer|>Let me try again.
    passes: -sroa -gvn
    count from 27 down to 11

Markers and passes are single tokens of a model's tokenizer: `MARKERS` and `flags()` list them. This
module knows text; it knows nothing of tokens, engines or LLVM.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from secondpass.errors import PassListError
from secondpass.llvm.passes import PassList

FORMAT_VERSION = 1

OPTIMIZE, ANSWER, FEEDBACK, END = "<|optimize|>", "<|answer|>", "<|feedback|>", "<|end|>"
SURE, TRY_AGAIN = "I am sure!\n", "Let me try again.\n"
PASSES, COUNT_FROM, DOWN_TO = "passes:", "\ncount from ", " down to "
CODE_OPEN, CODE_CLOSE = "<code>\n", "</code>\n"
MARKERS = (OPTIMIZE, ANSWER, FEEDBACK, END, SURE, TRY_AGAIN, PASSES, COUNT_FROM, DOWN_TO, CODE_OPEN, CODE_CLOSE)
"""Texts that are one token each, so that they neither merge with their neighbours nor split."""

_COUNT = r"(0|[1-9]\d{0,8})"
_COUNTS = re.compile(rf"{_COUNT}{DOWN_TO}{_COUNT}\n")
_FEEDBACK = re.compile(
    rf"{re.escape(FEEDBACK)}(?:invalid: (?P<message>[^\n]+)\n"
    rf"|valid{COUNT_FROM}(?P<source>0|[1-9]\d{{0,8}}){DOWN_TO}(?P<target>0|[1-9]\d{{0,8}})\n"
    rf"source (?P<source_right>right|wrong), target (?P<target_right>right|wrong)\n){re.escape(ANSWER)}"
)


class Objective(StrEnum):
    """What is to be made small."""

    INSTRUCTIONS = "instructions"
    BYTES = "bytes"


def flag(word: str) -> str:
    """How one element of a pass list is written in an answer: ` -sroa`, a token of its own."""
    return f" -{word}"


def flags(words: Iterable[str]) -> tuple[str, ...]:
    """`flag` of each element."""
    return tuple(flag(word) for word in words)


@dataclass(frozen=True, slots=True)
class Malformed:
    """An answer or prompt that does not follow its form.

    Attributes:
        text: what was read.
        fault: what is wrong with it, one line.
    """

    text: str
    fault: str


@dataclass(frozen=True, slots=True)
class OptimizePrompt:
    """Task Optimize: one function's unoptimised IR, and what to make small."""

    ir: str
    objective: Objective = Objective.INSTRUCTIONS

    def render(self) -> str:
        """The text a model continues with its answer."""
        return f"{OPTIMIZE}{self.objective}\n{self.ir}{ANSWER}"

    @classmethod
    def parse(cls, text: str) -> Self | Malformed:
        """The inverse of `render`."""
        head, newline, rest = text.partition("\n")
        objective = head.removeprefix(OPTIMIZE)
        if not head.startswith(OPTIMIZE) or not newline or objective not in list(Objective):
            return Malformed(text, f"the prompt does not begin with {OPTIMIZE} and an objective")
        if not rest.endswith(ANSWER):
            return Malformed(text, f"the prompt does not end with {ANSWER}")
        return cls(rest.removesuffix(ANSWER), Objective(objective))


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's answer: a pass list and the instruction counts it expects.

    Attributes:
        passes: the list, never empty.
        source: the count the model believes the prompt's IR has.
        target: the count it expects after the list.
        sure: "I am sure!" (True) or "Let me try again." (False) as first line; None for models
            without feedback training, which write neither.
        code: the IR it expects after the list; None where the reader stopped at the counts.
    """

    passes: PassList
    source: int
    target: int
    sure: bool | None = None
    code: str | None = None

    def render(self) -> str:
        """The text, without the end marker."""
        first = "" if self.sure is None else SURE if self.sure else TRY_AGAIN
        code = "" if self.code is None else f"{CODE_OPEN}{self.code}{CODE_CLOSE}"
        words = "".join(flags(self.passes.words))
        return f"{first}{PASSES}{words}{COUNT_FROM}{self.source}{DOWN_TO}{self.target}\n{code}"

    @classmethod
    def parse(cls, text: str) -> Self | Malformed:
        """The inverse of `render`; an end marker at the end is allowed."""
        rest, sure = text.removesuffix(END), None
        for line, meaning in ((SURE, True), (TRY_AGAIN, False)):
            if rest.startswith(line):
                rest, sure = rest.removeprefix(line), meaning
                break
        if not rest.startswith(PASSES):
            return Malformed(text, f"'{PASSES}' is missing")
        written, found, rest = rest.removeprefix(PASSES).partition(COUNT_FROM)
        if not found:
            return Malformed(text, "the counts are missing")
        words = written.split(" -")
        if words[0] or len(words) == 1:
            return Malformed(text, "the pass list is empty or does not begin with ' -'")
        try:
            passes = PassList.of(*words[1:])
        except PassListError as error:
            return Malformed(text, str(error))
        if passes.words != tuple(words[1:]):
            return Malformed(text, "the pass list is not written one pass a flag")
        counts = _COUNTS.match(rest)
        if not counts:
            return Malformed(text, "the counts are not two numbers and a line end")
        rest = rest[counts.end() :]
        code = None
        if rest:
            if not (rest.startswith(CODE_OPEN) and rest.endswith(CODE_CLOSE)):
                return Malformed(text, "what follows the counts is not code")
            code = rest.removeprefix(CODE_OPEN).removesuffix(CODE_CLOSE)
        return cls(passes, int(counts[1]), int(counts[2]), sure, code)


@dataclass(frozen=True, slots=True)
class FastFeedback:
    """What the compiler found in an answer, as far as the list and the counts tell.

    Attributes:
        fault: why the answer could not be used, one line; None for a valid one.
        source: the true count of the prompt's IR; None where the answer is invalid.
        target: the true count after the list; None where the answer is invalid.
        source_right: whether the answer's source count was true.
        target_right: whether its target count was true.
    """

    fault: str | None
    source: int | None = None
    target: int | None = None
    source_right: bool = False
    target_right: bool = False

    def render(self) -> str:
        """The text to append after the answer; the model continues with its next answer."""
        if self.fault is not None:
            return f"{FEEDBACK}invalid: {self.fault}\n{ANSWER}"
        return (
            f"{FEEDBACK}valid{COUNT_FROM}{self.source}{DOWN_TO}{self.target}\n"
            f"source {_verdict(self.source_right)}, target {_verdict(self.target_right)}\n{ANSWER}"
        )

    @classmethod
    def parse(cls, text: str) -> Self | Malformed:
        """The inverse of `render`."""
        match = _FEEDBACK.fullmatch(text)
        if not match:
            return Malformed(text, "not a Fast Feedback")
        if match["message"] is not None:
            return cls(match["message"])
        right = match["source_right"] == "right", match["target_right"] == "right"
        return cls(None, int(match["source"]), int(match["target"]), *right)


def _verdict(right: bool) -> str:
    return "right" if right else "wrong"
