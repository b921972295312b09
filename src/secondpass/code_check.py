"""Code that a model wrote for a function: does LLVM read it, and is it well-formed.

An answer's code is in the normal form (`ir.normalise`), which leaves out what is around a function:
declarations, variables, comdats, metadata. So it is read together with what surrounds the function in
its own module and in what the answer's list made of that. A name that none of them has is a fault of
the code; so is a function beside the one it was written for.

All of this is work for the sandbox (`Job.each`): reading alone can crash LLVM, or take all memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from secondpass import ir
from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Outcome, Status
from secondpass.llvm.module import Module

_WORD = r'(?:"[^"]*"|[\w.$-]+)'
_TYPE = re.compile(rf"%{_WORD} = type ")
_ENTITY = re.compile(rf"[%@$!]{_WORD}(?= = )|target \w+(?= = )")
_DECLARED = re.compile(rf"@{_WORD}(?=\()")
_REFERENCES = re.compile(r'("[^"]*")|,? ![\w.]+ !\d+| #\d+')
"""Metadata attachments and attribute groups: their numbers mean something in their own module alone."""
_ATOMIC = re.compile(r"^([ \t]*(?:%\S+ = )?(?:load|store) atomic .*\b(?:unordered|monotonic|acquire|release|seq_cst))$")
_ERROR = re.compile(r"code:(?P<line>\d+):\d+: error: (?P<what>[^\n]*)\n?(?P<quoted>[^\n]*)")


@dataclass(frozen=True, slots=True)
class Printed(Outcome):
    """A module as text.

    Attributes:
        text: its normal form.
    """

    text: str = ""


def print_normal_form(bitcode: bytes, _: str) -> Outcome:
    """A job's own work: the module's normal form, as `Printed`."""
    try:
        with Module.parse(bitcode) as module:
            return Printed(Status.OK, text=ir.normalise(module.to_text()))
    except LLVMError as error:
        return Outcome(Status.INVALID, str(error))


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """A job's own work: its items are what was written for the function that its module defines first.

    The outcome is OK for code that parses and verifies and defines that function alone; the message of
    any other is LLVM's, with the line of the code it is about.

    Attributes:
        compiled: bitcode of the module after the answer's list; None where that could not be run.
    """

    compiled: bytes | None

    def __call__(self, module: bytes, code: str) -> Outcome:
        """Read one piece of code."""
        try:
            name, around = _surroundings(module, self.compiled)
        except LLVMError as error:
            return Outcome(Status.INVALID, str(error))
        lines = code.split("\n")
        own = _entities(lines)
        types = {line for line in around.values() if _TYPE.match(line)}
        head = [line for entity, line in around.items() if line in types or entity not in own]
        body = ["" if line in types else _ATOMIC.sub(r"\1, align 1", line) for line in lines]
        text = "\n".join([*head, *body]).encode(errors="replace")
        try:
            with Module.parse(text, "code") as written:
                names = [function.name for function in written.functions()]
        except LLVMError as error:
            return Outcome(Status.INVALID, _message(str(error), len(head)))
        if names == [name]:
            return Outcome(Status.OK)
        instead = f"{' and '.join(names)}, not {name} alone" if names else f"no function, not even {name}"
        return Outcome(Status.INVALID, f"it defines {instead}")


def _surroundings(module: bytes, compiled: bytes | None) -> tuple[str, dict[str, str]]:
    """The name of the function code is written for, and the lines of both modules beside it, by entity.

    What the list made of the module comes first: it may have added variables and declarations. What it
    removed is there too, but for metadata, whose numbers would collide.
    """
    name, around = _beside(module)
    if compiled is not None:
        around = {entity: line for entity, line in around.items() if entity[0] != "!"}
        around |= _beside(compiled, name)[1]
    return name, around


def _beside(module: bytes, name: str = "") -> tuple[str, dict[str, str]]:
    """The lines of a module beside a function, the first where none is named; other functions are declared."""
    with Module.parse(module) as whole:
        names = [function.name for function in whole.functions()]
        if not names:
            raise LLVMError("the module defines no function: there is nothing to write code for")
        name = name if name in names else names[0]
        if len(names) == 1:
            return name, _entities(whole.to_text().split("\n"))
        with whole.extract(name) as part:
            return name, _entities(part.to_text().split("\n"))


def _entities(lines: list[str]) -> dict[str, str]:
    """The lines that define or declare what is not a function's body, by the entity's name."""
    found: dict[str, str] = {}
    for line in lines:
        entity = _DECLARED.search(line) if line.startswith("declare ") else _ENTITY.match(line)
        if entity:
            found[entity[0]] = _REFERENCES.sub(r"\1", line)
    return found


def _message(said: str, before: int) -> str:
    """LLVM's message, on one line: lines are counted in the code, of which `before` others come first."""
    found = _ERROR.match(said)
    if not found:
        return said.removeprefix("invalid IR: ")
    quoted = f": {found['quoted'].strip()}" if found["quoted"].strip() else ""
    line = int(found["line"]) - before
    # Before the code: what is beside the function misses it.
    place = f"line {line}: " if line > 0 else ""
    return f"{place}{found['what']}{quoted}"
