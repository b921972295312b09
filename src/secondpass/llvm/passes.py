"""PassList: an immutable list of passes in LLVM's own pipeline syntax.

`PassList.parse` reads everything `opt -passes=` reads, as far as its passes are in the vocabulary,
and flat lists too (`sroa,inline,licm`), which LLVM refuses because it infers one level from the first
name. Printing nests every pass at its own level and groups neighbours of one level into one
manager: `function(sroa,loop-mssa(licm)),cgscc(inline)` is both shorter and faster than a manager
a pass. What is printed, `opt -passes=` accepts.

Neighbours of a flat list share a manager; what the text puts into managers of its own stays apart:
`loop(indvars),loop(loop-deletion)` walks the loops twice, `loop(indvars,loop-deletion)` once. The
same holds for functions: passes leave attributes on one that others read when they reach its callers.

This module knows names and syntax; whether a loaded LLVM has a pass is `llvm.library`'s question.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from secondpass.errors import PassListError
from secondpass.llvm.vocabulary import EXCLUDED, Level, levels

Words = tuple[str, ...]
"""A flat list as the texts of its passes, the form in which searches compare and keep lists."""

_TOKEN = re.compile(r"[(),]|[^(),\s]+")
_MANAGER = re.compile(
    r"module|cgscc|loop|loop-mssa|devirt<\d+>|function(<((eager-inv|no-rerun)(;(eager-inv|no-rerun))*)?>)?"
)
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

    Such as `cgscc(inline,function(sroa))`, which simplifies each function right after inlining into it.
    """

    manager: str
    items: tuple[Pass | Nest, ...]

    @property
    def level(self) -> Level:
        """The level of what stands in it."""
        name = self.manager.partition("<")[0]
        return Level.CGSCC if name == "devirt" else Level(name)

    def __str__(self) -> str:
        return f"{self.manager}({_render(self.items, self.level)})"


@dataclass(frozen=True, slots=True)
class PassList:
    """An immutable list of passes. Equal lists run the same passes in the same nesting."""

    items: tuple[Pass | Nest, ...] = ()

    def __post_init__(self) -> None:
        if any(isinstance(item, Nest) for item in self.items):
            object.__setattr__(self, "items", _flattened(self.items, Level.MODULE))

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
        return cls(tuple(item for word in words for item in _Parser(word).parse()))

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
    for manager, group in groupby(items, key=lambda item: _manager_below(item, inside)):
        members = tuple(group)
        if manager is inside:
            parts += map(str, members)
        else:
            parts.append(f"{manager}({_render(members, manager)})")
    return ",".join(parts)


def _manager_below(item: Pass | Nest, inside: Level) -> Level:
    """The manager to open inside one of level `inside` on the way to an item; `inside` itself for none."""
    level = item.level
    if isinstance(item, Nest):
        if level in _LOOPS:
            return Level.FUNCTION
        return Level.CGSCC if item.manager.startswith("devirt") else inside
    if level in _LOOPS and inside in _LOOPS:
        return inside
    return Level.FUNCTION if level in _LOOPS and inside is not Level.FUNCTION else level


def _flattened(items: tuple[Pass | Nest, ...], inside: Level) -> tuple[Pass | Nest, ...]:
    """Take out every manager that `_render` puts back, so that the same nesting is always the same value."""
    flat: list[Pass | Nest] = []
    before = inside
    for manager, run in _runs(items, inside):
        if manager is inside:
            flat += run
        else:
            run = _flattened(tuple(run), manager)
            mixed = any(_manager_below(item, inside) is not manager for item in run)
            if mixed or manager is before:  # it also holds lower levels, or would be merged with its neighbour
                flat.append(Nest(manager.value, run))
                manager = inside
            else:
                flat += run
        before = manager
    return tuple(flat)


def _runs(items: tuple[Pass | Nest, ...], inside: Level) -> list[tuple[Level, list[Pass | Nest]]]:
    """Cut what a manager holds into what each manager one step below it holds; `inside` where none is needed."""
    runs: list[tuple[Level, list[Pass | Nest]]] = []
    open_ended = False
    for item in _spliced(items, inside):
        if (
            isinstance(item, Nest)
            and "<" not in item.manager
            and (item.level not in _LOOPS or inside is Level.FUNCTION)
        ):
            runs.append((item.level, list(item.items)))
            open_ended = False
            continue
        manager = _manager_below(item, inside)
        if not open_ended or runs[-1][0] is not manager:
            runs.append((manager, []))
        runs[-1][1].append(item)
        open_ended = True
    return runs


def _spliced(items: tuple[Pass | Nest, ...], inside: Level) -> Iterator[Pass | Nest]:
    """The items, with managers opened that repeat the one they stand in, or stand in no other."""
    for item in items:
        if isinstance(item, Pass):
            yield item
        elif "<" in item.manager:
            yield Nest(item.manager, _flattened(item.items, item.level))
        elif item.level in (Level.MODULE, inside) or inside in _LOOPS:
            yield from _spliced(item.items, inside)
        else:
            yield item


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
        items = [self._item(inside)]
        while self._peek() == ",":
            self._at += 1
            items.append(self._item(inside))
        return items

    def _item(self, inside: Level | None) -> Pass | Nest:
        name = self._peek()
        if name is None or name in "(),":
            raise self._error("a pass name is missing " + ("at the end" if name is None else f"before '{name}'"))
        self._at += 1
        if self._peek() != "(":
            return self._leaf(name, inside)
        self._at += 1
        level = self._manager(name, inside)
        items = self._list(level)
        if self._peek() != ")":
            raise self._error(f"'{name}(' is not closed")
        self._at += 1
        return Nest(name, tuple(items))

    def _manager(self, name: str, inside: Level | None) -> Level:
        """The level of a manager that may stand where it does."""
        if not _MANAGER.fullmatch(name):
            raise self._error(f"'{name}' is not a pass manager and takes no parentheses")
        level = Nest(name, ()).level
        misplaced = inside is not None and not _may_nest(level, inside)
        if misplaced or ("<" in name and inside in (Level.FUNCTION, *_LOOPS)):
            raise self._error(f"'{name}(...)' cannot stand inside '{inside}(...)'")
        if "no-rerun" in name and inside is not Level.CGSCC:
            raise self._error(f"'{name}(...)' must stand inside 'cgscc(...)'")
        return level

    def _leaf(self, text: str, inside: Level | None) -> Pass | Nest:
        name = text.partition("<")[0]
        if name not in levels():
            raise self._error(_unknown(name))
        if "<" in text and not text.endswith(">"):
            raise self._error(f"'{text}': the parameters are not closed by '>'")
        found = Pass(text)
        if inside is not None and not _may_nest(found.level, inside):
            raise self._error(f"'{text}' is a {found.level} pass and cannot stand inside '{inside}(...)'")
        manager = found.level if inside is None else _manager_below(found, inside)
        if inside is None or manager is inside:
            return found
        return Nest(manager.value, (found,))  # LLVM gives it a manager of its own

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _error(self, what: str) -> PassListError:
        return PassListError(f"pass list '{' '.join(self._text.split())}': {what}")


def _joined_parameters(text: str) -> str:
    """Take the blanks out, so that `simplifycfg< a; b >` is one token; LLVM allows none itself."""
    return re.sub(r"<[^<>]*>", lambda match: "".join(match[0].split()), text)


def _may_nest(level: Level, inside: Level) -> bool:
    """Whether a pass or manager of one level may be written directly inside a manager of another."""
    if inside in _LOOPS:
        return level in (Level.LOOP, inside)
    order = list(Level)
    return order.index(level) >= order.index(inside)


def _unknown(name: str) -> str:
    if name in EXCLUDED:
        return f"'{name}' is left out of the vocabulary: it {EXCLUDED[name]}"
    near = difflib.get_close_matches(name, levels(), n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `secondpass passes` lists the vocabulary"
    return f"no pass is called '{name}'{hint}"
