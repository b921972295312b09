"""The text formats between model and compiler: Task Optimize, its answer, and Short, Long and Fast Feedback.

Every form is a frozen value with `render`, and a parser that is its exact inverse. A malformed
answer parses to `Malformed`, a value that says what was wrong. The forms follow the paper (sections
2.1 to 2.3); the words are ours. The answer's order lets a reader stop right after the counts:

    <|optimize|>instructions                  the objective
    define i32 @f(i32 %0) { ... }             unoptimised IR (`ir.normalise`)
    <|answer|>passes: -sroa -simplifycfg
    count from 27 down to 11
    <code>                                    the IR it expects, where code is asked for
    define i32 @f(i32 %0) { ... }
    </code>
    <|feedback|>valid                         what the compiler found
    count from 27 down to 13
    source right, target wrong
    code parses, BLEU 0.87                    Short and Long only
    <code>                                    Long only: the IR that the list leaves
    define i32 @f(i32 %0) { ... }
    </code>
    <|answer|>Let me try again.
    passes: -sroa -gvn
    count from 27 down to 11

The first line of a feedback is `invalid:` and the reason, without counts, where the list could not be
run. The line about code is one of

    no code
    code parses, BLEU 0.87                    without the BLEU where nothing was compiled
    code invalid, BLEU 0.42: line 3: expected instruction opcode

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

_COUNT = "0|[1-9][0-9]{0,8}"
_COUNTS = re.compile(rf"({_COUNT}){DOWN_TO}({_COUNT})\n")
_CODE = "no code|code (?:parses|(?P<code_invalid>invalid))(?:, BLEU (?P<bleu>0[.][0-9]{2}|1[.]00))?"
_FEEDBACK = re.compile(
    rf"{re.escape(FEEDBACK)}(?:invalid: (?P<fault>[^\n]+)\n"
    rf"|valid{COUNT_FROM}(?P<source>{_COUNT}){DOWN_TO}(?P<target>{_COUNT})\n"
    rf"source (?P<source_right>right|wrong), target (?P<target_right>right|wrong)\n)"
    rf"(?:(?P<code>{_CODE})(?(code_invalid): (?P<code_fault>[^\n]+))\n"
    rf"(?:{CODE_OPEN}(?P<compiled>.*){CODE_CLOSE})?)?{re.escape(ANSWER)}",
    re.DOTALL,
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
class CodeFinding:
    """What the compiler found in an answer's code.

    Attributes:
        fault: what it says about code that does not parse or verify, one line; None for well-formed code.
        bleu: of the code against the compiled IR, in hundredths: 100 where they do not differ. None
            where nothing was compiled.

    Raises:
        ValueError: the fault is not one line, or the BLEU none of 0 to 100.
    """

    fault: str | None = None
    bleu: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        _check_line(self.fault)
        if self.bleu is not None and not 0 <= self.bleu <= 100:
            raise ValueError(f"a BLEU of {self.bleu} hundredths: it runs from 0 to 100")

    def render(self) -> str:
        """Its line in a feedback, without the line end."""
        bleu = "" if self.bleu is None else f", BLEU {self.bleu // 100}.{self.bleu % 100:02}"
        return f"code parses{bleu}" if self.fault is None else f"code invalid{bleu}: {self.fault}"


class Form(StrEnum):
    """How much a feedback says: each form all that the one before it says, and more (paper, section 2.3)."""

    FAST = "fast"
    """What the list and the counts tell, so that no code need be written."""
    SHORT = "short"
    """What was found in the answer's code too."""
    LONG = "long"
    """The compiled IR too."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the compiler found in an answer.

    Attributes:
        form: how much of it is told. Where nothing was compiled, Long Feedback has nothing to add to
            Short and is one.
        fault: why the answer could not be used, one line; None for a valid one.
        source: the true count of the prompt's IR; None where the answer is invalid.
        target: the true count after the list; None where the answer is invalid.
        source_right: whether the answer's source count was true.
        target_right: whether its target count was true.
        code: about the answer's code; None where it has none, and in Fast Feedback.
        compiled: the IR that the list leaves, in Long Feedback alone.

    Raises:
        ValueError: a value that the form or an invalid answer does not have, one that is missing, or a
            fault of more than a line.
    """

    form: Form
    fault: str | None = None
    source: int | None = None
    target: int | None = None
    source_right: bool = False
    target_right: bool = False
    code: CodeFinding | None = None
    compiled: str | None = None

    def __post_init__(self) -> None:
        """Check that the text can say all the values."""
        _check_line(self.fault)
        missing = [self.source, self.target].count(None)
        if missing != (0 if self.fault is None else 2) or (missing and (self.source_right or self.target_right)):
            raise ValueError("feedback has either a fault or both counts")
        if self.form is Form.FAST and self.code is not None:
            raise ValueError("Fast Feedback says nothing about code")
        if (self.form is Form.LONG) != (self.compiled is not None):
            raise ValueError("compiled IR is what Long Feedback has, and no other form")

    def pieces(self) -> tuple[str, ...]:
        """The text cut into markers, at even places, and plain text between them, at odd ones.

        Faults and compiled IR can hold anything, a marker's characters too; these are no markers.
        """
        about_code = ""
        if self.form is not Form.FAST:
            about_code = f"{'no code' if self.code is None else self.code.render()}\n"
        if self.fault is not None:
            head = (FEEDBACK, f"invalid: {self.fault}\n{about_code}")
        else:
            rights = f"source {_verdict(self.source_right)}, target {_verdict(self.target_right)}"
            head = (FEEDBACK, "valid", COUNT_FROM, f"{self.source}", DOWN_TO, f"{self.target}\n{rights}\n{about_code}")
        tail = () if self.compiled is None else (CODE_OPEN, self.compiled, CODE_CLOSE, "")
        return (*head, *tail, ANSWER)

    def render(self) -> str:
        """The text to append after the answer; the model continues with its next answer."""
        return "".join(self.pieces())

    @classmethod
    def parse(cls, text: str) -> Self | Malformed:
        """The inverse of `render`."""
        found = _FEEDBACK.fullmatch(text)
        if not found:
            return Malformed(text, "not a feedback")
        form = Form.FAST if found["code"] is None else Form.SHORT if found["compiled"] is None else Form.LONG
        code = None
        if form is not Form.FAST and found["code"] != "no code":
            bleu = None if found["bleu"] is None else int(found["bleu"].replace(".", ""))
            code = CodeFinding(found["code_fault"], bleu)
        if found["fault"] is not None:
            return cls(form, found["fault"], code=code, compiled=found["compiled"])
        right = found["source_right"] == "right", found["target_right"] == "right"
        counts = int(found["source"]), int(found["target"])
        return cls(form, None, *counts, *right, code, found["compiled"])


def _verdict(right: bool) -> str:
    return "right" if right else "wrong"


def _check_line(fault: str | None) -> None:
    if fault is not None and (not fault or "\n" in fault):
        raise ValueError(f"a fault is one line of text, not {fault!r}")
