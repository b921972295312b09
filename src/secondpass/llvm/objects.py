"""Sizes out of an object in memory: code with its data, text, and functions by symbol.

Bytes are what size-bound users pay for, and LLVM's C API tells nothing of sections but names and sizes, so the few
headers that are needed are read here: `elf` and `wasm` say what is in an object, this module what counts as what.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from secondpass.errors import LLVMError
from secondpass.llvm import elf, wasm
from secondpass.llvm.section import Section

_UNWIND = (b".eh_frame", b".gcc_except_table", b".ARM.ex")
_RELOCATED = b".data.rel.ro"


def code_size(image: bytes) -> int:
    """The bytes of code and of all data that has a value at the start; unwind tables are not counted.

    Data that may be written counts too: whether a table of constants is among it is a pass's doing (`globalopt` takes
    it out), and the file holds it in either place.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    return sum(it.size for it in _sections(image) if it.is_loaded and not _is_unwind(it))


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
        LLVMError: the image is of no format that is known.
    """
    loaded = [it for it in _sections(image) if it.is_loaded]
    unwind = sum(it.size for it in loaded if _is_unwind(it))
    return Beside(unwind, sum(it.relocations for it in loaded))


def text_size(image: bytes) -> int:
    """The bytes that `llvm-size` calls text: in ELF all that is loaded and not written, code, constants and unwind
    tables; in WebAssembly code.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    return sum(it.size for it in _sections(image) if it.is_text)


def loaded_size(image: bytes) -> int:
    """The bytes that an object adds to a program's file: text, data, and what fills in addresses.

    A table of addresses is written when a program is loaded at a place of its own, so it is data, and each of its
    entries takes a relocation in the program. Moving constants there makes text less and the program more.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    loaded = (it for it in _sections(image) if it.is_loaded)
    return sum(it.size + (it.addresses if it.is_written else 0) for it in loaded)


def written_size(image: bytes) -> int:
    """The bytes of data with a value at the start that the program may write; constants that hold addresses are not.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    written = (it for it in _sections(image) if it.is_loaded and it.is_written)
    return sum(it.size for it in written if not it.name.startswith(_RELOCATED))


def function_sizes(image: bytes) -> Mapping[str, int]:
    """The bytes of every function of an object, by name.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    return (wasm if _is_wasm(image) else elf).function_sizes(image)


def text_sizes(image: bytes) -> Mapping[str, int]:
    """What every function takes of an object's text, by name: its bytes, and in ELF those of its entry in `.eh_frame`.

    What it takes of other tables is not known: `.gcc_except_table`, `.ARM.exidx`.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    unwind = {} if _is_wasm(image) else elf.unwind_sizes(image)
    return {name: size + unwind.get(name, 0) for name, size in function_sizes(image).items()}


def undefined(image: bytes) -> Set[str]:
    """What an object asks the linker for: in WebAssembly its functions.

    Raises:
        LLVMError: the image is of no format that is known.
    """
    return (wasm if _is_wasm(image) else elf).undefined(image)


def _sections(image: bytes) -> list[Section]:
    return (wasm if _is_wasm(image) else elf).sections(image)


def _is_wasm(image: bytes) -> bool:
    if image.startswith(elf.MAGIC):
        return False
    if image.startswith(wasm.MAGIC):
        return True
    raise LLVMError("bytes are known of ELF and WebAssembly objects alone, and this target has others")


def _is_unwind(section: Section) -> bool:
    return section.name.startswith(_UNWIND)
