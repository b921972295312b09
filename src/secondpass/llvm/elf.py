"""ELF objects: their sections and functions.

Layout: System V gABI, chapter 4 (sections, symbols); LSB 5.0 Core, chapter 10.6 (unwind tables).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from secondpass.llvm.section import Section

MAGIC = b"\x7fELF"
_SHT_SYMTAB = 2
_SHT_RELA = 4
_SHT_REL = 9
_SHT_NOBITS = 8
_SHF_WRITE = 0x1
_SHF_ALLOC = 0x2
_SHF_EXECINSTR = 0x4
_STT_FUNC = 2
_SHN_LORESERVE, _SHN_XINDEX = 0xFF00, 0xFFFF
_ADDRESSES = {(3, False): 1, (40, False): 2, (62, True): 1, (183, True): 257, (243, False): 1, (243, True): 2}
"""The kind of relocation that puts a whole address, by machine (i386, ARM, x86-64, AArch64, RISC-V) and whether it has
64 bits; of other machines none is counted. Source: the machines' psABIs."""


@dataclass(frozen=True, slots=True)
class _Header:
    name: int
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


def sections(image: bytes) -> list[Section]:
    """All sections, with what relocates each."""
    headers, names = _headers(image)
    found = [_section(it, _string(image, headers[names].offset + it.name)) for it in headers]
    for it in headers:
        if it.kind in (_SHT_RELA, _SHT_REL):
            of = found[it.info]
            bytes_of = of.relocations + it.size, of.addresses + _whole_addresses(image, it)
            found[it.info] = replace(of, relocations=bytes_of[0], addresses=bytes_of[1])
    return found


def function_sizes(image: bytes) -> dict[str, int]:
    """The bytes of every function symbol, by name."""
    return {it.name: it.size for it in _symbols(image) if it.kind == _STT_FUNC and it.size}


def unwind_sizes(image: bytes) -> dict[str, int]:
    """The bytes of the entry of every function that has one in `.eh_frame`, by name.

    None of a function in a section beyond the 65,279th, of MIPS with 64 bits and of PowerPC with function descriptors.
    """
    headers, names = _headers(image)
    symbols = list(_symbols(image))
    functions: dict[tuple[int, int], list[str]] = {}
    for it in symbols:
        if it.kind == _STT_FUNC and it.section < _SHN_LORESERVE:
            functions.setdefault((it.section, it.value), []).append(it.name)
    found: dict[str, int] = {}
    for index, it in enumerate(headers):
        if it.kind == _SHT_NOBITS or _string(image, headers[names].offset + it.name) != b".eh_frame":
            continue
        targets = dict(_targets(image, headers, index, symbols))
        for at, size in _unwind_entries(image, it):
            for name in functions.get(targets.get(at + 8, (0, 0)), ()):
                found[name] = found.get(name, 0) + size
    return found


def undefined(image: bytes) -> set[str]:
    """The symbols that are defined elsewhere."""
    return {it.name for it in _symbols(image) if not it.section and it.name}


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    kind: int
    section: int
    value: int
    size: int


def _symbols(image: bytes) -> Iterator[_Symbol]:
    wide, order = _form(image)
    headers, _ = _headers(image)
    for table in (it for it in headers if it.kind == _SHT_SYMTAB):
        strings = headers[table.link]
        for at in range(table.offset, table.offset + table.size, 24 if wide else 16):
            if wide:
                name, info, _other, section, value, size = struct.unpack_from(order + "IBBHQQ", image, at)
            else:
                name, value, size, info, _other, section = struct.unpack_from(order + "IIIBBH", image, at)
            text = _string(image, strings.offset + name).decode("utf-8", "replace")
            yield _Symbol(text, info & 0xF, section, value, size)


def _unwind_entries(image: bytes, section: _Header) -> Iterator[tuple[int, int]]:
    """The entries of functions in an unwind table: where each begins in it, and its bytes."""
    _, order = _form(image)
    at = 0
    while at < section.size:
        length, common = struct.unpack_from(order + "II", image, section.offset + at)
        if length in (0, 0xFFFF_FFFF):  # the end; or more than 4 GB
            return
        if common:  # else it is what entries have in common
            yield at, length + 4
        at += length + 4


def _targets(
    image: bytes, headers: list[_Header], section: int, symbols: list[_Symbol]
) -> Iterator[tuple[int, tuple[int, int]]]:
    """What the relocations of a section point at: their offset; the target's section, and its place there."""
    wide, order = _form(image)
    for table in (it for it in headers if it.kind in (_SHT_RELA, _SHT_REL) and it.info == section):
        layout = order + ("QQ" if wide else "II") + ("" if table.kind == _SHT_REL else "q" if wide else "i")
        for at in range(table.offset, table.offset + table.size, struct.calcsize(layout)):
            offset, info, *rest = struct.unpack_from(layout, image, at)
            number: int = info >> (32 if wide else 8)
            if number < len(symbols):  # MIPS of 64 bits has another layout
                symbol = symbols[number]
                within = headers[section].offset + offset
                addend = rest[0] if rest else struct.unpack_from(order + "i", image, within)[0]
                yield offset, (symbol.section, symbol.value + addend)


def _section(header: _Header, name: bytes) -> Section:
    written = bool(header.flags & _SHF_WRITE)
    code = bool(header.flags & _SHF_EXECINSTR)
    loaded = bool(header.flags & _SHF_ALLOC) and header.kind != _SHT_NOBITS
    return Section(name, header.size, loaded, is_text=loaded and (code or not written), is_written=written)


def _whole_addresses(image: bytes, table: _Header) -> int:
    """The bytes of a table of relocations that put whole addresses."""
    wide, order = _form(image)
    (machine,) = struct.unpack_from(order + "H", image, 0x12)
    address = _ADDRESSES.get((machine, wide))
    layout, mask = (order + "Q", 0xFFFF_FFFF) if wide else (order + "I", 0xFF)
    word = struct.calcsize(layout)
    entry = word * (3 if table.kind == _SHT_RELA else 2)
    infos = range(table.offset + word, table.offset + table.size, entry)
    return sum(entry for at in infos if struct.unpack_from(layout, image, at)[0] & mask == address)


def _form(image: bytes) -> tuple[bool, str]:
    """Whether it has 64 bits, and the order of its bytes as `struct` has it."""
    return image[4] == 2, "<" if image[5] == 1 else ">"


def _headers(image: bytes) -> tuple[list[_Header], int]:
    """The headers of all sections, and which section holds their names."""
    wide, order = _form(image)
    if wide:
        (table,) = struct.unpack_from(order + "Q", image, 0x28)
        entry, count, names = struct.unpack_from(order + "HHH", image, 0x3A)
        layout = order + "IIQQQQII"
    else:
        (table,) = struct.unpack_from(order + "I", image, 0x20)
        entry, count, names = struct.unpack_from(order + "HHH", image, 0x2E)
        layout = order + "IIIIIIII"
    if count == 0 or names == _SHN_XINDEX:  # more than 65,279 sections: the first header holds the numbers
        first: tuple[int, ...] = struct.unpack_from(layout, image, table)
        count, names = count or first[5], first[6] if names == _SHN_XINDEX else names
    rows: list[tuple[int, ...]] = [struct.unpack_from(layout, image, table + entry * index) for index in range(count)]
    return [_Header(*row[:3], *row[4:8]) for row in rows], names


def _string(image: bytes, start: int) -> bytes:
    return image[start : image.index(0, start)]
