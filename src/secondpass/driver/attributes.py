"""Attributes of functions that code generation heeds: every function has those with which it takes least text.

Options of code generation hold for a whole file, attributes for one function. So one code generation in which all
functions are changed in the same way says of each whether the change suits it. Most comes from the frame pointer: with
one, an unwind table need not say after every push where the stack stands, and a place on the stack is addressed with a
byte less; without one, a function that has little there is shorter (docs/decisions/0019-attributes-of-functions.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache

from secondpass.driver.machines import learned_for
from secondpass.llvm.module import Module

_ASSEMBLY = re.compile(rb"\basm\b")
"""In a function's text. Assembly may use the register that would hold the frame pointer."""
_AS_WRITTEN = "naked", "optnone"
"""Functions with these attributes are left alone."""
_TUNED = "x86_64"
"""What triples begin with whose processors are told apart."""


@dataclass(frozen=True, slots=True)
class Variation:
    """A change of a function's attributes that leaves alone what the function does.

    Attributes:
        frame: whether it gets a frame pointer; one that it has is never taken away.
        processor: for whose sake instructions are chosen and put in order, of those that every machine of the kind has;
            empty for the function's own. All are of x86-64; x86 of 32 bits has the same variations without.
        without: attributes that it loses: `minsize`, with which a few things come out larger, or `optsize` too.
    """

    frame: bool
    processor: str
    without: tuple[str, ...]

    def change(self, module: Module, names: Collection[str]) -> None:
        """Change functions of a module, by name."""
        values = {"frame-pointer": "all"} if self.frame else {}
        if self.processor:
            values["tune-cpu"] = self.processor
        module.mark(names, values, self.without)


@cache
def variations(triple: str) -> tuple[Variation, ...]:
    """Those that are worth a code generation, the most useful one first (`driver.machines`).

    Args:
        triple: of the module.
    """
    learned = learned_for(triple).attributes
    found = [Variation(it["frame"], it["processor"], tuple(it["without"])) for it in learned]
    if not triple.startswith(_TUNED):
        found = [replace(it, processor="") for it in found if it.frame or it.without]
    return tuple(dict.fromkeys(found))


def suited(
    module: Module,
    text_sizes: Callable[[Module], Mapping[str, int] | None],
    is_over: Callable[[], bool] = lambda: False,
) -> bytes | None:
    """Give each function of a module the variation that suits it.

    Args:
        module: finished; it stays as it is.
        text_sizes: what every function takes of the text that code generation makes; None where that fails.
        is_over: whether there is no time for another code generation.

    Returns:
        Bitcode; None where no function is better off.
    """
    least = dict(text_sizes(module) or {})
    names = least.keys() & free(module)
    tried = variations(module.triple) if names else ()
    chosen: dict[str, Variation] = {}
    for variation in tried:
        if is_over():
            break
        with module.clone() as changed:
            variation.change(changed, names)
            sizes = text_sizes(changed) or {}
        for name in names & sizes.keys():
            if sizes[name] < least[name]:
                least[name], chosen[name] = sizes[name], variation
    if not chosen:
        return None
    with module.clone() as made:
        for variation in tried:
            variation.change(made, {name for name, its in chosen.items() if its == variation})
        return made.to_bitcode()


def free(module: Module) -> set[str]:
    """The functions whose attributes may change."""
    if module.declares("llvm.eh.sjlj.setjmp"):  # it keeps the frame pointer itself, whichever register that is
        return set()
    kept = {name for attribute in _AS_WRITTEN for name in module.with_attribute(attribute)}
    return {name for name, text in module.texts() if name not in kept and not _ASSEMBLY.search(text)}
