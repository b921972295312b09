"""PassList: an immutable list of passes in LLVM's own pipeline syntax.

`PassList.parse` reads everything `opt -passes=` reads, as far as its passes are in the vocabulary,
and flat lists too (`sroa,inline,licm`), which LLVM refuses because it infers one level from the first
name. Printing nests every pass at its own level and groups neighbours of one level into one
adaptor: `function(sroa,loop-mssa(licm)),cgscc(inline)` is both shorter and faster than an adaptor
a pass. What is printed, `opt -passes=` accepts.

This module knows names and syntax; whether a loaded LLVM has a pass is `llvm.probe`'s question.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from secondpass.errors import PassListError
from secondpass.llvm.vocabulary import EXCLUDED, Level, levels

_TOKEN = re.compile(r"[(),]|[^(),\s]+")
_REPEAT = re.compile(r"(repeat|devirt)<\d+>")
_MANAGERS = {level.value: level for level in Level}
_LOOPS = (Level.LOOP, Level.LOOP_MSSA)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass with its parameters, spelled as LLVM spells it, such as `simplifycfg<no-keep-loops>`."""

    text: str

    @property
    def level(self) -> Level:
        """Where LLVM runs it; KeyError for a name outside the vocabulary (`PassList.parse` checks)."""
        return levels()[self.text.partition("<")[0]]

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Nest:
    """A pass manager written out because flattening it would change what runs when.

    Such as `cgscc(inline,function(sroa))`, which simplifies each function right after inlining into
    it, or `repeat<2>(function(gvn))`.
    """

    manager: str
    items: tuple[Pass | Nest, ...]

    @property
    def level(self) -> Level:
        """The level the manager runs at."""
        if self.manager.startswith("devirt"):
            return Level.CGSCC
        name = self.manager.partition("<")[0]
        return _MANAGERS.get(name, Level.MODULE) if name != "repeat" else self._widest

    @property
    def _widest(self) -> Level:
        order = list(Level)
        return min((item.level for item in self.items), key=order.index)

    def __str__(self) -> str:
        return f"{self.manager}({_render(self.items, self.level)})"


@dataclass(frozen=True, slots=True)
class PassList:
    """An immutable list of passes. Equal lists run the same passes in the same nesting."""

    items: tuple[Pass | Nest, ...] = ()

    @classmethod
    def parse(cls, text: str) -> PassList:
        """Read a pipeline: nested as LLVM writes it, or flat.

        Raises:
            PassListError: the syntax is wrong, a pass is unknown or excluded, or it stands in a
                manager that cannot run it.
        """
        return cls(tuple(_Parser(text).parse()))

    @classmethod
    def of(cls, *words: str) -> PassList:
        """A list of these elements, one argument each: `PassList.of("sroa", "simplifycfg")`."""
        return cls(tuple(item for word in words for item in cls.parse(word).items))

    @property
    def words(self) -> tuple[str, ...]:
        """The elements as texts, without the adaptors: what a model reads and writes."""
        return tuple(str(item) for item in self.items)

    def without(self, index: int) -> PassList:
        """The same list less the element at `index`."""
        return PassList(self.items[:index] + self.items[index + 1 :])

    def __str__(self) -> str:
        return _render(self.items, Level.MODULE)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Pass | Nest]:
        return iter(self.items)

    def __add__(self, other: PassList) -> PassList:
        return PassList(self.items + other.items)

    def __getitem__(self, index: slice) -> PassList:
        return PassList(self.items[index])


def _render(items: tuple[Pass | Nest, ...], inside: Level) -> str:
    """Print `items` as the contents of a manager of level `inside`."""
    parts: list[str] = []
    for adaptor, group in groupby(items, key=lambda item: _adaptor(item, inside)):
        members = tuple(group)
        if adaptor is inside:
            parts += map(str, members)
        else:
            parts.append(f"{adaptor}({_render(members, adaptor)})")
    return ",".join(parts)


def _adaptor(item: Pass | Nest, inside: Level) -> Level:
    """The manager needed one step below `inside` to reach the item's level."""
    level = item.level
    if level is inside or (isinstance(item, Nest) and item.manager in _MANAGERS):
        return inside
    if isinstance(item, Nest) and item.manager.partition("<")[0] in _MANAGERS:
        return inside  # function<eager-inv>(...) is its own adaptor
    if level in _LOOPS and inside is not Level.FUNCTION:
        return Level.FUNCTION
    return level


class _Parser:
    """Recursive descent over `item (',' item)*` with `item = name | manager '(' list ')'`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(_joined_parameters(text))
        self._at = 0

    def parse(self) -> list[Pass | Nest]:
        if not self._tokens:
            return []
        items = self._list(None)
        if self._at < len(self._tokens):
            raise self._error(f"unexpected '{self._tokens[self._at]}'")
        return items

    def _list(self, inside: Level | None) -> list[Pass | Nest]:
        items = self._item(inside)
        while self._peek() == ",":
            self._at += 1
            items += self._item(inside)
        return items

    def _item(self, inside: Level | None) -> list[Pass | Nest]:
        name = self._peek()
        if name is None or name in "(),":
            raise self._error("a pass name is missing " + ("at the end" if name is None else f"before '{name}'"))
        self._at += 1
        if self._peek() != "(":
            return [self._leaf(name, inside)]
        base = name.partition("<")[0]
        if base not in _MANAGERS and not _REPEAT.fullmatch(name):
            raise self._error(f"'{name}' is not a pass manager and takes no parentheses")
        self._at += 1
        items = self._list(_MANAGERS.get(base, inside))
        if self._peek() != ")":
            raise self._error(f"'{name}(' is not closed")
        self._at += 1
        return self._nest(name, tuple(items), inside)

    def _nest(self, manager: str, items: tuple[Pass | Nest, ...], inside: Level | None) -> list[Pass | Nest]:
        level = _MANAGERS.get(manager)
        if inside is not None and level is not None and not _may_nest(level, inside):
            raise self._error(f"'{manager}(...)' cannot stand inside '{inside}(...)'")
        outside = Level.FUNCTION if level in _LOOPS else Level.MODULE
        if level is Level.MODULE or all(_adaptor(item, outside) is level for item in items):
            return list(items)  # printing puts them back under the same manager
        return [Nest(manager, items)]

    def _leaf(self, text: str, inside: Level | None) -> Pass:
        name = text.partition("<")[0]
        if name not in levels():
            raise self._error(_unknown(name))
        if "<" in text and not text.endswith(">"):
            raise self._error(f"'{text}': the parameters are not closed by '>'")
        found = Pass(text)
        if inside is not None and not _may_stand(found.level, inside):
            raise self._error(f"'{text}' is a {found.level} pass and cannot stand inside '{inside}(...)'")
        return found

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _error(self, what: str) -> PassListError:
        return PassListError(f"pass list '{self._text}': {what}")


def _joined_parameters(text: str) -> str:
    """Take the blanks out, so that `simplifycfg< a; b >` is one token; LLVM allows none itself."""
    return re.sub(r"<[^<>]*>", lambda match: "".join(match[0].split()), text)


def _may_nest(level: Level, inside: Level) -> bool:
    """Whether a manager of one level may be written inside another's."""
    order = list(Level)
    return level is inside or (order.index(level) > order.index(inside) and inside not in _LOOPS)


def _may_stand(level: Level, inside: Level) -> bool:
    """Whether a pass of one level may be written directly inside a manager of another."""
    return _may_nest(level, inside) or (level is Level.LOOP and inside is Level.LOOP_MSSA)


def _unknown(name: str) -> str:
    if name in EXCLUDED:
        return f"'{name}' is left out of the vocabulary: it {EXCLUDED[name]}"
    near = difflib.get_close_matches(name, levels(), n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `secondpass passes` lists the vocabulary"
    return f"no pass is called '{name}'{hint}"
