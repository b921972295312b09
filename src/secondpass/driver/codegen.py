"""Code generation that suits a module: options of clang's back end, tried, and kept where the object is smaller.

-Oz makes one compromise for all code: how registers are allocated, how blocks are laid out, whether equal sequences
of instructions become a function of their own (the machine outliner). Another one is often smaller, and none changes
what the code means. Options that suit most modules are tried first; then one after the other is taken out or put in, as
what suits a module best is seldom what suits many. Both were learned on modules of training projects
(`driver.machines`): the first options by what they take off all of them, the changes by what each takes off behind
those before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

from secondpass.driver.machines import learned_for
from secondpass.errors import ToolchainError
from secondpass.llvm import objects
from secondpass.llvm.module import Module

_OUTLINER = "enable-machine-outliner"
_NEARLY = 0.01
"""With sections for functions there are a few bytes more; what differs more is other code."""
_CONFIRMED = 3
"""Options that a quick trial found best, the last ones first, of which one is to make a smaller object in earnest."""
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
        untried: changes of options that there was no time for.
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


def usual(triple: str, given: Sequence[str] = ()) -> Options:
    """A machine's first options without those that a command line sets: lists are compared by the code that these make.

    The machine outliner is none of them: what it does depends on all functions of a module, and lists are tried on one
    at a time.
    """
    return _without(learned_for(triple).first, names_of(set_by(given)))


def unsuitable(module: Module, *, placed: bool) -> frozenset[str]:
    """The names of options with which the code of a module might not do what the module says.

    Args:
        module: finished.
        placed: whether its source calls a function hot or cold; that passes find some to be so is of no account.
    """
    found: set[str] = set()
    if not module.may_be_outlined:
        found.add(_OUTLINER)
    if module.declares("llvm.eh.sjlj.setjmp"):  # the basic allocator gives away the place of what is only read later
        found.add("regalloc")
    if placed:  # what puts hot and cold functions into sections is part of CodeGenPrepare
        found.add("disable-cgp")
    return frozenset(found)


def smallest(
    generate: Callable[[bytes, Options], bytes],
    modules: Sequence[bytes],
    options: Options = (),
    changes: Iterable[str] = (),
    left_out: Set[str] = frozenset(),
    is_over: Callable[[], bool] = lambda: False,
    fits: Callable[[bytes], bool] = lambda _: True,
    quick: Callable[[bytes, Options], bytes] | None = None,
    suit: Callable[[bytes, Options], bytes] = lambda module, _: module,
) -> Generated:
    """Generate code without options and with some, then with one more or less of them, for the least text.

    What is smallest without options need not be so with them: of two modules of one file the one that was 17 bytes
    larger became 947 bytes smaller than the other (docs/experiments.md). So all are tried with the first options, and
    the changes on the one that is smallest then, whose functions have got the attributes that suit them before.

    Args:
        generate: makes an object of a module with options; raises UnknownOptionsError where the compiler does not have
            some, and any other ToolchainError where it fails.
        modules: versions of one, the best first.
        options: what to begin with.
        changes: options to take out where they are in force, and to put in where they are not, in place of another
            value of the same; each change that makes the object smaller stays.
        left_out: names of options that are not to be touched.
        is_over: whether the time is over; then nothing more is tried, but the first options on the best module.
        fits: whether an object can take the place of clang's; where none can, one that cannot is returned.
        quick: `generate` for less, which need not make quite the same: it tries the changes if the first object has
            nearly as much text by it. What is returned is made by `generate`, with the best options or, if these make
            nothing smaller by it, with those before.
        suit: makes of a module one whose functions have the attributes that suit them with these options
            (`driver.attributes`).

    Raises:
        ToolchainError: without options it fails too.
    """
    trials = _Trials(generate, modules[0], (), left_out, fits)
    for number, module in enumerate(modules):
        if not (number and is_over()):
            trials.run(module, options)
    if not is_over():
        trials.run(suit(trials.module, trials.best.options), trials.best.options)
    waiting = list(changes)
    if waiting and quick is not None and not is_over():
        for found in reversed(_found_quickly(quick, trials, waiting, is_over, fits)):
            trials.run(trials.module, found)
            if trials.best.options == found:
                break
    trials.climb(waiting, is_over)
    return replace(trials.best, untried=len(waiting))


def _found_quickly(
    quick: Callable[[bytes, Options], bytes],
    trials: _Trials,
    waiting: list[str],
    is_over: Callable[[], bool],
    fits: Callable[[bytes], bool],
) -> list[Options]:
    """The last options that quick trials of changes found best; where they make other code, none, and none is tried."""
    try:
        others = _Trials(quick, trials.module, trials.best.options, trials.left_out, fits)
    except ToolchainError:
        return []
    if not math.isclose(others.best.text, trials.best.text, rel_tol=_NEARLY):
        return []
    others.climb(waiting, is_over)
    return others.kept[-_CONFIRMED:]


class _Trials:
    """Objects, each made once, and the smallest of them.

    Args:
        generate, left_out, fits: as `smallest` has them.
        module, options: of the first object.

    Attributes:
        module, best: what the smallest one is of.
        kept: the options of each that was smaller than all before, but for the first.
    """

    def __init__(
        self,
        generate: Callable[[bytes, Options], bytes],
        module: bytes,
        options: Options,
        left_out: Set[str],
        fits: Callable[[bytes], bool],
    ) -> None:
        self._generate, self._fits = generate, fits
        self.left_out = set(left_out)
        self.kept: list[Options] = []
        self._tried = {(module, frozenset(options))}
        self.module, self.best = module, Generated(generate(module, options), options)
        self._least = self._rank(self.best)

    def climb(self, waiting: list[str], is_over: Callable[[], bool]) -> None:
        """Try one change after the other on what is smallest, until the time is over; those not tried are left."""
        while waiting and not is_over():
            self.run(self.module, changed(self.best.options, waiting.pop(0)))

    def run(self, module: bytes, options: Options) -> None:
        """Make an object with options; without those that this compiler does not have."""
        options = _without(options, self.left_out)
        if (module, frozenset(options)) in self._tried:
            return
        self._tried.add((module, frozenset(options)))
        try:
            made = Generated(self._generate(module, options), options)
        except UnknownOptionsError as error:
            self.left_out |= error.names
            self.run(module, options)
        except ToolchainError:  # the options do not go together
            pass
        else:
            if (rank := self._rank(made)) < self._least:
                self.module, self.best, self._least = module, made, rank
                self.kept.append(options)

    def _rank(self, made: Generated) -> tuple[bool, int]:
        return not self._fits(made.image), made.text


def changed(options: Options, change: str) -> Options:
    """Options without one that they hold, or with one that they do not, in place of another value of the same."""
    others = _without(options, {_name(change)})
    return others if change in options else (*others, change)


def words_of(options: Options) -> list[str]:
    """Options as clang's command line has them."""
    return [word for it in options for word in ("-mllvm", it)]


def set_by(words: Sequence[str]) -> Options:
    """The options that a command line sets: `-mllvm X`, `-mllvm=X`, and both behind `-Xclang`."""
    bare = [it for it in words if it != "-Xclang"]
    joined = (it.removeprefix("-mllvm=") for it in bare if it.startswith("-mllvm="))
    return (*joined, *(word for before, word in pairwise(bare) if before == "-mllvm"))


def names_of(options: Options) -> set[str]:
    """Their names, without values."""
    return set(map(_name, options))


def _without(options: Options, names: Set[str]) -> Options:
    return tuple(it for it in options if _name(it) not in names)


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0]
