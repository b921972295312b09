"""A section of an object, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Section:
    """What an object's sizes are made of.

    Attributes:
        name: as in the object.
        size: bytes.
        is_loaded: whether a program's file holds it for the program's memory.
        is_text: whether `llvm-size` counts it as text.
        is_written: whether the program may write there.
        relocations: bytes of what says where in it to put addresses.
        addresses: of these, bytes for whole addresses, which are left in a program that is loaded anywhere.
    """

    name: bytes
    size: int
    is_loaded: bool = False
    is_text: bool = False
    is_written: bool = False
    relocations: int = 0
    addresses: int = 0
