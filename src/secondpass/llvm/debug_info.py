"""Debug information of modules that were linked from parts.

Each part brings a copy of what its function refers to: the compile unit, types, the functions around. Linking
keeps all copies, since LLVM holds distinct nodes for different ones. Here copies become one again, on the module's
text: the C API can neither read the nodes nor replace them. LangRef, "Metadata", has the syntax.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

_NODE = re.compile(r"^(!\d+) = (distinct )?(.*)$", re.MULTILINE)
_REFERENCE = re.compile(r'"[^"\n]*"|(!\d+)\b')
"""Strings, which may hold anything, and nodes."""
_UNIT, _TYPE = "!DICompileUnit(", "!DICompositeType("
_UNITS = re.compile(r"^!llvm\.dbg\.cu = !\{(.*)\}$", re.MULTILINE)
_LISTS = {
    _UNIT: re.compile(r", (?:enums|retainedTypes|globals|imports|macros): !\d+"),
    _TYPE: re.compile(r", (?:elements|templateParams|vtableHolder): !\d+"),
}
"""What they hold, and through which every node would be reached from any."""
_IDENTIFIER = re.compile(r'\bidentifier: ("[^"]*")')
_OURS = "secondpass."
_KEPT = re.compile(rf"^!{_OURS}types = .*$", re.MULTILINE)
_ATTACHED = re.compile(r"^define .* !dbg (!\d+)", re.MULTILINE)
_COPIED = (_UNIT, _TYPE, "!DISubprogram(", "!DILexicalBlock(", "!DIGlobalVariable(")
"""Distinct nodes that are the same where all is the same that they hold. Others (an inlined call, a loop, an
assignment) are different ones for LLVM even so."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A node's text without what it refers to, that, and its class where that is known and never splits."""

    label: str
    references: Sequence[str]
    fixed: str | None


def units(text: str) -> list[str]:
    """The names of a module's compile units; those with debug information have one, unless they were linked."""
    found = _UNITS.search(text)
    return found[1].split(", ") if found else []


def named(text: str) -> str:
    """A module's text in which every type that holds others has an identifier, so that it can be told without them.

    All are kept in a list, whatever becomes of their users.
    """
    types: list[str] = []

    def with_name(it: re.Match[str]) -> str:
        if not it[3].startswith(_TYPE) or _is_array(it[3]):
            return it[0]
        types.append(it[1])
        return it[0] if _IDENTIFIER.search(it[3]) else f'{it[0][:-1]}, identifier: "{_OURS}{it[1]}")'

    named_text = _NODE.sub(with_name, text)
    return f"{named_text}\n!{_OURS}types = !{{{', '.join(types)}}}\n"


def without_names(text: str) -> str:
    """The inverse of `named`."""
    return _KEPT.sub("", re.sub(rf', identifier: "{_OURS}[^"]*"', "", text))


def without_lists(text: str) -> str:
    """A named text whose compile units and types do not list what is in them: a part needs what its function uses."""

    def shorter(it: re.Match[str]) -> str:
        kind = it[3].partition("(")[0] + "("
        return it[0] if kind not in _LISTS or _is_array(it[3]) else _LISTS[kind].sub("", it[0])

    return _KEPT.sub("", _NODE.sub(shorter, text))


def merged(text: str) -> str:
    """A named text with equal nodes merged, types of one identifier, and all compile units.

    Nodes are equal when they say the same of equal nodes: the coarsest such relation, found by splitting classes
    until none splits any more. Of a class that one remains which lists most.
    """
    all_units = units(text)
    nodes = {it[1]: _node(it[1], it[3], it[2] is not None, all_units) for it in _NODE.finditer(text)}
    attached = [it[1] for it in _ATTACHED.finditer(text)]
    kept = _representatives(nodes)
    shared = {name for name, count in Counter(kept[it] for it in attached).items() if count > 1}
    if shared:  # a function may not have another one's
        alone = {it: replace(nodes[it], fixed=it) for it in attached if kept[it] in shared}
        kept = _representatives(nodes | alone)
    text = _NODE.sub(lambda it: it[0] if kept[it[1]] == it[1] else "", text)
    text = _REFERENCE.sub(lambda it: kept.get(it[1], it[0]) if it[1] else it[0], text)
    return _UNITS.sub(lambda it: f"!llvm.dbg.cu = !{{{', '.join(dict.fromkeys(it[1].split(', ')))}}}", text)


def _is_array(text: str) -> bool:
    return text.startswith(f"{_TYPE}tag: DW_TAG_array_type")


def _node(name: str, text: str, distinct: bool, units: Sequence[str]) -> _Node:
    references = [it[1] for it in _REFERENCE.finditer(text) if it[1]]
    if name in units:
        fixed = "unit"
    elif text.startswith(_TYPE) and (identifier := _IDENTIFIER.search(text)):
        fixed = identifier[1]
    else:
        fixed = name if distinct and not text.startswith(_COPIED) else None
    return _Node(_REFERENCE.sub(lambda it: "!" if it[1] else it[0], text), references, fixed)


def _representatives(nodes: Mapping[str, _Node]) -> dict[str, str]:
    """For each node the one that stands for it."""
    classes = _numbered({name: it.fixed or (it.label,) for name, it in nodes.items()})
    loose = {name: it for name, it in nodes.items() if not it.fixed}
    count = 0
    while max(classes.values(), default=-1) >= count:
        count = max(classes.values()) + 1
        said = {name: (classes[name], *[classes[it] for it in node.references]) for name, node in loose.items()}
        classes = _numbered({name: said.get(name, it.fixed) for name, it in nodes.items()})
    kept: dict[int, str] = {}
    for name, number in classes.items():
        if number not in kept or len(nodes[name].references) > len(nodes[kept[number]].references):
            kept[number] = name
    return {name: kept[number] for name, number in classes.items()}


def _numbered(colours: Mapping[str, object]) -> dict[str, int]:
    numbers: dict[object, int] = {}
    return {name: numbers.setdefault(colour, len(numbers)) for name, colour in colours.items()}
