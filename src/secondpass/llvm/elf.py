"""Sizes out of an ELF object in memory: code with its data, text, and functions by symbol.

Bytes are what size-bound users pay for, and LLVM's C API tells no section flags, so the few headers
needed are read here. Layout: System V gABI, chapters 4 (sections, symbols).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from secondpass.errors import LLVMError

_SHT_SYMTAB = 2
_SHT_RELA = 4
_SHT_REL = 9
_SHT_NOBITS = 8
_SHF_WRITE = 0x1
_SHF_ALLOC = 0x2
_SHF_EXECINSTR = 0x4
_STT_FUNC = 2
_UNWIND = (b".eh_frame", b".gcc_except_table", b".ARM.ex")
_ADDRESSES = {(3, False): 1, (40, False): 2, (62, True): 1, (183, True): 257, (243, False): 1, (243, True): 2}
"""The kind of relocation that puts a whole address, by machine (i386, ARM, x86-64, AArch64, RISC-V) and whether it has
64 bits. Source: the machines' psABIs."""
_CODE, _RELOCATED = b".text", b".data.rel.ro"


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    name: bytes = b""

    @property
    def is_loaded(self) -> bool:
        """Whether a program's file holds it for the program's memory."""
        return bool(self.flags & _SHF_ALLOC) and self.kind != _SHT_NOBITS

    @property
    def is_text(self) -> bool:
        """Whether it is loaded and not written."""
        return self.is_loaded and (bool(self.flags & _SHF_EXECINSTR) or not self.flags & _SHF_WRITE)

    @property
    def is_unwind(self) -> bool:
        return self.name.startswith(_UNWIND)


def code_size(image: bytes) -> int:
    """The bytes of code and of all data that has a value at the start; unwind tables are not counted.

    Data that may be written counts too: whether a table of constants is among it is a pass's doing (`globalopt` takes
    it out), and the file holds it in either place.

    Raises:
        LLVMError: the image is not ELF.
    """
    return sum(it.size for it in _sections(image) if it.is_loaded and not it.is_unwind)


@dataclass(frozen=True, slots=True)
class Beside:
    """Bytes of an object beside those of `code_size`.

    Attributes:
        unwind: tables for exceptions and backtraces.
        relocations: what says where a linker, or for data a loader, has to put addresses.
    """

    unwind: int = 0
    relocations: int = 0

    def __add__(self, other: Beside) -> Beside:
        """Of two objects together."""
        return Beside(self.unwind + other.unwind, self.relocations + other.relocations)


def beside(image: bytes) -> Beside:
    """What there is beside code and data; no name, no debug information.

    Raises:
        LLVMError: the image is not ELF.
    """
    sections, found = _sections(image), Beside()
    for it in sections:
        if it.kind in (_SHT_RELA, _SHT_REL):
            found += Beside(relocations=it.size if sections[it.info].flags & _SHF_ALLOC else 0)
        elif it.is_loaded and it.is_unwind:
            found += Beside(unwind=it.size)
    return found


def has_placed_code(image: bytes) -> bool:
    """Whether code was given a section of its own name: it has to be there, as in memory that is there early.

    Raises:
        LLVMError: the image is not ELF.
    """
    return any(it.flags & _SHF_EXECINSTR and it.size and not it.name.startswith(_CODE) for it in _sections(image))


def text_size(image: bytes) -> int:
    """The bytes that `llvm-size` calls text: all that is loaded and not written, code, constants and unwind tables.

    Raises:
        LLVMError: the image is not ELF.
    """
    return sum(it.size for it in _sections(image) if it.is_text)


def loaded_size(image: bytes) -> int:
    """The bytes that an object adds to a program's file: text, data, and what fills in addresses.

    A table of addresses is written when a program is loaded at a place of its own, so it is data, and each of its
    entries takes a relocation in the program. Moving constants there makes text less and the program more.

    Raises:
        LLVMError: the image is not ELF.
    """
    wide, order = _form(image)
    (machine,) = struct.unpack_from(order + "H", image, 0x12)
    address = _ADDRESSES.get((machine, wide))
    where, mask = ("Q", 0xFFFF_FFFF) if wide else ("I", 0xFF)
    sections = _sections(image)
    size = 0
    for it in sections:
        if it.is_loaded:
            size += it.size
        elif it.kind in (_SHT_RELA, _SHT_REL) and sections[it.info].flags & _SHF_WRITE:
            word = struct.calcsize(order + where)
            entry = (3 if it.kind == _SHT_RELA else 2) * word
            entries = range(it.offset + word, it.offset + it.size, entry)
            kinds = (struct.unpack_from(order + where, image, at)[0] & mask for at in entries)
            size += sum(entry for kind in kinds if kind == address)
    return size


def written_size(image: bytes) -> int:
    """The bytes of data with a value at the start that the program may write; constants that hold addresses are not.

    Raises:
        LLVMError: the image is not ELF.
    """
    written = (it for it in _sections(image) if it.is_loaded and it.flags & _SHF_WRITE)
    return sum(it.size for it in written if not it.name.startswith(_RELOCATED))


def function_sizes(image: bytes) -> dict[str, int]:
    """The bytes of every function symbol of an ELF object, by name."""
    wide, order = _form(image)
    sections = _sections(image)
    sizes: dict[str, int] = {}
    for table in (section for section in sections if section.kind == _SHT_SYMTAB):
        strings = sections[table.link]
        for at in range(table.offset, table.offset + table.size, 24 if wide else 16):
            if wide:
                name, info, _other, _index, _value, size = struct.unpack_from(order + "IBBHQQ", image, at)
            else:
                name, _value, size, info, _other, _index = struct.unpack_from(order + "IIIBBH", image, at)
            if info & 0xF == _STT_FUNC and size:
                start = strings.offset + name
                sizes[image[start : image.index(0, start)].decode("utf-8", "replace")] = size
    return sizes


def _form(image: bytes) -> tuple[bool, str]:
    if image[:4] != b"\x7fELF":
        raise LLVMError("sizes in bytes are known for ELF targets only: use --objective instructions")
    return image[4] == 2, "<" if image[5] == 1 else ">"


def _sections(image: bytes) -> list[_Section]:
    wide, order = _form(image)
    if wide:
        (table,) = struct.unpack_from(order + "Q", image, 0x28)
        entry, count, names = struct.unpack_from(order + "HHH", image, 0x3A)
        layout, pick = order + "IIQQQQII", (1, 2, 4, 5, 6, 7)
    else:
        (table,) = struct.unpack_from(order + "I", image, 0x20)
        entry, count, names = struct.unpack_from(order + "HHH", image, 0x2E)
        layout, pick = order + "IIIIIIII", (1, 2, 4, 5, 6, 7)
    if count == 0:  # more than 65,279 sections: the first header holds the numbers
        first: tuple[int, ...] = struct.unpack_from(layout, image, table)
        count, names = first[5:7]
    rows: list[tuple[int, ...]] = [struct.unpack_from(layout, image, table + entry * index) for index in range(count)]
    start: int = rows[names][4]
    return [_Section(*(row[it] for it in pick), name=_string(image, start + row[0])) for row in rows]


def _string(image: bytes, start: int) -> bytes:
    return image[start : image.index(0, start)]
