"""What was learned for each family of machines: options of code generation, and attributes of functions.

Back ends differ: x86 gains by a frame pointer, whose unwind tables are long, and ARM does not. So both are learned for
a family at a time, on modules for one of its machines (`scripts/learn_codegen.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

_FAMILIES = {
    "x86": re.compile(r"x86_64|amd64|i\d86"),
    "arm": re.compile(r"thumb|arm(?!64)"),  # arm64 is AArch64
    "riscv": re.compile(r"riscv"),
}
"""How triples of each family begin."""
_OTHERS = "arm"
"""Whose options and attributes machines of no family have."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What suits a family of machines.

    Attributes:
        first: options of code generation that suit most modules (`driver.codegen`).
        changes: options that are worth a change in a module's own, the most useful one first.
        attributes: variations of functions' attributes, as `driver.attributes` reads them, the most useful one first.
    """

    first: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    attributes: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """As the file has it."""
        return cls(**{name: tuple(value) for name, value in values.items()})


def family(triple: str) -> str | None:
    """The family of a triple; None for one that nothing was learned for."""
    return next((name for name, begins in _FAMILIES.items() if begins.match(triple)), None)


@cache
def learned() -> dict[str, Learned]:
    """What ships, by family."""
    text = resources.files("secondpass.driver").joinpath("machines.json").read_text()
    return {name: Learned.of_json(values) for name, values in json.loads(text).items()}


def learned_for(triple: str) -> Learned:
    """What suits the machine of a triple: another family's where it is of none."""
    return learned()[family(triple) or _OTHERS]
