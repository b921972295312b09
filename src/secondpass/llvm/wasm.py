"""WebAssembly objects: their sections and functions.

Sources: the WebAssembly specification, section 5.5 (modules); the tool conventions' `Linking.md` (object files).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from secondpass.errors import LLVMError
from secondpass.llvm.section import Section

MAGIC = b"\0asm"
_HEADER_BYTES = 8
_CUSTOM, _IMPORT, _CODE, _DATA = 0, 2, 10, 11
_FUNCTION = 0
"""As a kind of import, and of symbol."""
_END = 0x0B
_SEGMENTS, _SYMBOLS = 5, 8
"""Parts of the section `linking`."""
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40
_CLEARED = b".bss", b".tbss"
"""Segments of zeros, which a linker leaves out."""


@dataclass(slots=True)
class _Reader:
    """Numbers and names from a place on."""

    image: bytes
    at: int

    def byte(self) -> int:
        """One byte."""
        self.at += 1
        return self.image[self.at - 1]

    def number(self) -> int:
        """A number in LEB128; one with a sign is read as one without, which takes as many bytes."""
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def name(self) -> bytes:
        """Bytes behind their number."""
        size = self.number()
        self.at += size
        return self.image[self.at - size : self.at]


@dataclass(frozen=True, slots=True)
class _Part:
    """A section of the module: its number, its name where it is a custom one, where its content begins and ends."""

    kind: int
    name: bytes
    start: int
    end: int


def sections(image: bytes) -> list[Section]:
    """Code, and each segment of data, by the linker's name for it."""
    parts = list(_parts(image))
    relocations = {it.name: it.end - it.start for it in parts}
    found: list[Section] = []
    for it in parts:
        if it.kind == _CODE:
            size = it.end - it.start
            found.append(Section(b"CODE", size, True, is_text=True, relocations=relocations.get(b"reloc.CODE", 0)))
        elif it.kind == _DATA:
            of_all = relocations.get(b"reloc.DATA", 0)
            for name, size in zip(_names_of_segments(image, parts), _segments(image, it)):
                loaded, written = not name.startswith(_CLEARED), not name.startswith(b".rodata")
                found.append(Section(name, size, loaded, is_written=written, relocations=of_all if loaded else 0))
                of_all = 0 if loaded else of_all  # no segment has its own
    return found


def function_sizes(image: bytes) -> dict[str, int]:
    """The bytes of every function that is defined, by the name of its symbol."""
    parts = list(_parts(image))
    names = _names_of_functions(image, parts)
    imported = len(_imported_functions(image, parts))
    sizes: dict[str, int] = {}
    for part in (it for it in parts if it.kind == _CODE):
        reader = _Reader(image, part.start)
        for index in range(imported, imported + reader.number()):
            size = len(reader.name())
            sizes |= dict.fromkeys(names.get(index, ()), size)
    return sizes


def undefined(image: bytes) -> set[str]:
    """The functions that are defined elsewhere."""
    return set(_imported_functions(image, list(_parts(image))))


def _parts(image: bytes) -> Iterator[_Part]:
    reader = _Reader(image, _HEADER_BYTES)
    while reader.at < len(image):
        kind, size = reader.byte(), reader.number()
        end = reader.at + size
        name = reader.name() if kind == _CUSTOM else b""
        yield _Part(kind, name, reader.at, end)
        reader.at = end


def _segments(image: bytes, part: _Part) -> Iterator[int]:
    """The sizes of the segments of data."""
    reader = _Reader(image, part.start)
    for _ in range(reader.number()):
        kind = reader.number()
        if kind == 2:
            reader.number()  # which memory
        if kind != 1:  # where it lies, a constant expression
            reader.byte()
            reader.number()
            if reader.byte() != _END:
                raise LLVMError("a WebAssembly object with a segment whose place is no constant")
        yield len(reader.name())


def _linking(image: bytes, parts: list[_Part], kind: int) -> Iterator[_Reader]:
    """A part of the section `linking`, read from its count on."""
    for part in (it for it in parts if it.name == b"linking"):
        reader = _Reader(image, part.start)
        reader.number()  # the version
        while reader.at < part.end:
            found, size = reader.byte(), reader.number()
            if found == kind:
                yield _Reader(image, reader.at)
            reader.at += size


def _names_of_segments(image: bytes, parts: list[_Part]) -> Iterator[bytes]:
    for reader in _linking(image, parts, _SEGMENTS):
        for _ in range(reader.number()):
            yield reader.name()
            reader.number()  # alignment
            reader.number()  # flags


def _names_of_functions(image: bytes, parts: list[_Part]) -> dict[int, list[str]]:
    """The symbols of functions that are defined, by number: several, where there are aliases."""
    names: dict[int, list[str]] = {}
    for reader in _linking(image, parts, _SYMBOLS):
        for _ in range(reader.number()):
            kind, flags = reader.byte(), reader.number()
            named = not flags & _UNDEFINED or bool(flags & _EXPLICIT_NAME)
            if kind == 1:  # data: a name, and where it is
                reader.name()
                if not flags & _UNDEFINED:
                    for _ in range(3):
                        reader.number()
                continue
            index = reader.number()
            if kind == 3:  # a section has no name
                continue
            name = reader.name() if named else b""
            if kind == _FUNCTION and not flags & _UNDEFINED:
                names.setdefault(index, []).append(name.decode("utf-8", "replace"))
    return names


def _imported_functions(image: bytes, parts: list[_Part]) -> list[str]:
    """The names of the functions that are imported: these have the first numbers."""
    functions: list[str] = []
    for part in (it for it in parts if it.kind == _IMPORT):
        reader = _Reader(image, part.start)
        for _ in range(reader.number()):
            reader.name()  # the module
            name, kind = reader.name(), reader.byte()
            if kind == _FUNCTION:
                functions.append(name.decode("utf-8", "replace"))
            if kind == 1:  # a table: its type and limits
                reader.byte()
            if kind in (1, 2):
                has_most = reader.byte() & 1
                reader.number()
                if has_most:
                    reader.number()
            elif kind == 3:  # a global: its type, whether it changes
                reader.byte()
                reader.byte()
            elif kind == 4:  # a tag: an attribute, a type
                reader.byte()
                reader.number()
            else:
                reader.number()  # a function's type
    return functions
