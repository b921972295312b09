"""Code generation that suits a module: options of clang's back end, tried, and kept where the object is smaller.

-Oz makes one compromise for all code: how registers are allocated, how blocks are laid out, whether equal sequences
of instructions become a function of their own (the machine outliner). Another one is often smaller, and none changes
what the code means. A few sets of options are tried on every module; they were chosen on modules of training projects
as a coreset is (`scripts/learn_codegen.py`), each next set for what it takes off beside those before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import pairwise

from secondpass.errors import ToolchainError
from secondpass.llvm import objects
from secondpass.llvm.module import Module

_OUTLINER = "enable-machine-outliner"
_UNKNOWN = re.compile(r"Unknown command line argument '-+([^'=]+)")
"""What LLVM says of each option that it does not have."""
Options = tuple[str, ...]
"""As they stand behind `-mllvm`, one each."""


@dataclass(frozen=True, slots=True)
class Generated:
    """An object.

    Attributes:
        image: the object.
        options: of code generation, beside the command's own.
        untried: sets of options that there was no time for.
    """

    image: bytes
    options: Options
    untried: int = 0

    @property
    def text(self) -> int:
        """Its bytes of text."""
        return objects.text_size(self.image)


class UnknownOptionsError(ToolchainError):
    """Options that a compiler does not have: it is another version of clang, or lacks the target they are for.

    Attributes:
        names: of the options.
    """

    def __init__(self, message: str, names: frozenset[str]) -> None:
        """Say what the compiler said."""
        super().__init__(message)
        self.names = names


def refusal(said: str) -> ToolchainError:
    """The error behind a step that clang did not take.

    Args:
        said: clang's messages.
    """
    message = f"clang does not take a step of ours: {said.splitlines()[0] if said else 'no message'}"
    names = frozenset(_UNKNOWN.findall(said))
    return UnknownOptionsError(message, names) if names else ToolchainError(message)


@cache
def shipped() -> tuple[Options, ...]:
    """The sets in the package, the most useful one first."""
    text = resources.files("secondpass.driver").joinpath("codegen.json").read_text()
    return tuple(map(tuple, json.loads(text)))


def usual(given: Sequence[str] = ()) -> Options:
    """Options that suit most modules, for sizes that lists are compared by.

    They are the first set in the package, without the machine outliner: what it does depends on all functions of a
    module, and lists are tried on one at a time.

    Args:
        given: the words of the command line: what they set is left out.
    """
    return _without(shipped()[0], {_OUTLINER, *_set_by(given)})


def suits(options: Options, module: Module, *, placed: bool) -> bool:
    """Whether code that is generated with options does what the module says.

    Args:
        options: a set.
        module: finished.
        placed: whether its source calls a function hot or cold; that passes find some to be so is of no account.
    """
    # The machine outliner is not for every module. The basic register allocator gives away the place of what is only
    # read after a `__builtin_longjmp`; and what puts hot and cold functions into sections is part of CodeGenPrepare.
    if any(_name(it) == _OUTLINER for it in options) and not module.may_be_outlined:
        return False
    if "-regalloc=basic" in options and module.declares("llvm.eh.sjlj.setjmp"):
        return False
    return "-disable-cgp" not in options or not placed


def smallest(
    generate: Callable[[bytes, Options], bytes],
    modules: Sequence[bytes],
    sets: Sequence[Options],
    given: Sequence[str] = (),
    is_over: Callable[[], bool] = lambda: False,
    fits: Callable[[bytes], bool] = lambda _: True,
) -> Generated:
    """Generate code with no options, then with each set, and take what has least text of all that fits.

    What is smallest without options need not be so with them: of two modules of one file the one that was 17 bytes
    larger became 947 bytes smaller than the other (docs/experiments.md). So the first set chooses one of the modules,
    and that goes on beside the first.

    Args:
        generate: makes an object of a module with options; raises UnknownOptionsError where the compiler does not have
            some, and any other ToolchainError where it fails.
        modules: versions of one, the best first.
        sets: what to try; the first is taken among equals.
        given: the words of the command line: what they set stays as it is.
        is_over: whether the time is over; then nothing more is tried, but the first set on the best module, which takes
            as long as no set.
        fits: whether an object can take the place of clang's; where none can, one that cannot is returned.

    Raises:
        ToolchainError: without options it fails too.
    """

    @cache  # the best one is compared again with every set
    def rank(made: Generated) -> tuple[bool, int]:
        return not fits(made.image), made.text

    left_out = _set_by(given)
    best = Generated(generate(modules[0], ()), ())
    tried: set[Options] = {()}
    while sets := [it for it in dict.fromkeys(_without(options, left_out) for options in sets) if it not in tried]:
        if is_over() and len(tried) > 1:
            return replace(best, untried=len(sets))
        options = sets[0]
        tried.add(options)
        try:
            made = {modules[0]: Generated(generate(modules[0], options), options)}
            for module in modules[1:]:
                if not is_over():
                    made[module] = Generated(generate(module, options), options)
        except UnknownOptionsError as error:  # the others are tried, in this set and those to come
            left_out |= error.names
        except ToolchainError:
            continue
        else:
            best = min(best, *made.values(), key=rank)
            if len(modules) > 2:
                modules = list(dict.fromkeys((min(made, key=lambda it: rank(made[it])), modules[0])))
    return best


def words_of(options: Options) -> list[str]:
    """Options as clang's command line has them."""
    return [word for it in options for word in ("-mllvm", it)]


def _set_by(words: Sequence[str]) -> set[str]:
    """The names of the options that a command line sets."""
    return {_name(word) for before, word in pairwise(words) if before == "-mllvm"}


def _without(options: Options, names: Set[str]) -> Options:
    return tuple(it for it in options if _name(it) not in names)


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
