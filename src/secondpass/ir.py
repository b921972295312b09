"""IR text as the model sees it: one function, without what says nothing about its optimisation.

LLVM's own printing of a small function is mostly attribute groups, metadata and alignment. What is
left here is the `define` with its body, plus the struct types it names. The hash of this text is the
function's identity in corpora and labels.
"""

from __future__ import annotations

import hashlib
import re

NORMAL_FORM_VERSION = 2

_NOISE = re.compile(
    r'("[^"]*")'  # kept: assembly, quoted names
    r"|, ![\w.]+ !\d+"  # metadata attachments: tbaa, loop, srcloc
    r"|(?<=[\w)}]) ![\w.]+ !\d+"  # the same on a define
    r"|,? align \d+"
    r"| #\d+"  # attribute groups
    r"|(?<=[ (])(?:noundef|dso_local|local_unnamed_addr|unnamed_addr|signext|zeroext|hidden) "
    r"| (?:noundef|signext|zeroext)(?=[,)])"
    r"| (?:local_)?unnamed_addr(?= |$)"
)
_COMMENT = re.compile(r'("[^"]*")|\s*;.*$')
_NEAR = re.compile(
    r"(?P<name>[%@](?:\"[^\"]*\"|[\w.$-]+)|^(?:\"[^\"]*\"|[\w.$-]+)(?=:))"
    r'|(?P<constant>\bc"[^"]*"'
    r"|(?<![\w.%@-])[-+]?(?:f?0x[0-9A-FKLMHR]+|\d+\.\d+e[+-]\d+|\d+|inf|[qs]?nan(?:\(0x[0-9A-F]+\))?)(?![\w.:]| x )"
    r"|\b(?:true|false|null|undef|poison|zeroinitializer)\b)"
    r'|"[^"]*"',  # kept: assembly
    re.MULTILINE,
)
_TYPE_NAME = re.compile(r"%(?:\"[^\"]+\"|[A-Za-z$._-][\w$.-]*)")


def normalise(text: str) -> str:
    """The model's view of a module that defines one function.

    Args:
        text: the module as `Module.to_text` prints it.

    Returns:
        The struct types the function names, then the function, each line ended by a newline.
        Comments, attributes, metadata, alignment, declarations and globals are left out. Empty
        where the module defines no function.
    """
    lines = [_COMMENT.sub(r"\1", line).rstrip() for line in text.splitlines()]
    body = [_NOISE.sub(r"\1", line) for line in _body(lines) if line and not line.lstrip().startswith("#dbg_")]
    types = {name: line for line in lines if " = type " in line for name in (line.split(" = type ", 1)[0],)}
    named: set[str] = set()
    found = set(_TYPE_NAME.findall("\n".join(body))) & types.keys()
    while found:  # a struct's fields may be structs
        named |= found
        found = {inner for name in found for inner in _TYPE_NAME.findall(types[name])} & types.keys() - named
    kept = [line for name, line in types.items() if name in named]
    return "".join(f"{line}\n" for line in kept + body)


def _body(lines: list[str]) -> list[str]:
    start = next((index for index, line in enumerate(lines) if line.startswith("define ")), None)
    if start is None:
        return []
    end = next(index for index in range(start, len(lines)) if lines[index] == "}")
    return lines[start : end + 1]


def digest(normalised: str) -> str:
    """The identity of a function in corpora and labels: 24 hexadecimal digits of its text's SHA-256."""
    return hashlib.sha256(normalised.encode()).hexdigest()[:24]


def group(normalised: str) -> str:
    """What near-duplicates share: the digest of the text with names, numbering and constants taken out.

    Copies of a function in two projects or two versions differ in those alone. Values, blocks, symbols
    and named types become numbers in the order in which they first appear, so that what is used where
    still counts; LLVM's intrinsics keep their names, the definitions of types go.
    """
    numbers: dict[str, str] = {}

    def common(found: re.Match[str]) -> str:
        name = found["name"]
        if name is None:
            return "#" if found["constant"] else found[0]
        if name.startswith("@llvm."):
            return name
        name = name if name[0] in "%@" else f"%{name}"  # a block's label, where it stands
        return numbers.setdefault(name, f"{name[0]}{len(numbers)}")

    lines = (line for line in normalised.splitlines() if " = type " not in line)
    return digest(_NEAR.sub(common, "\n".join(lines)))
