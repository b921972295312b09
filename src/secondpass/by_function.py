"""A module in which every function had the list that suits it.

The module is taken apart (`llvm.parts`). On each function, callees first, its lists are tried and the best result is
kept; then the parts are put together, and a few lists that need to see the whole module are tried on that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.parts import CLEAN_UP, Parts
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.module_lists import size_of
from secondpass.prompt import Objective

_LAST = (
    PassList.of("globalopt", "globaldce", "constmerge"),
    PassList.of("globaldce", "constmerge"),
    PassList.of("globalopt", "globaldce", "constmerge", "simplifycfg", "instcombine"),
    PassList.of("globalopt", "ipsccp", "simplifycfg", "globaldce", "constmerge"),
)
"""Tried on the whole module at last: what is local to it and used no more, equal constants, arguments that are the
same in all calls. The first makes constants of variables that are never written, and a program is the
better for it at the same size."""
_RESERVE = 0.1
"""The share of the time for what follows the choice: putting the parts together, the last lists."""
_TOLD = 0.1
"""The share of the time in which all lists are tried, until what was tried tells something."""
_FIXED = 150
"""What a list costs on any function, in instructions: a fresh copy, the object."""
_TABLES = "globalopt", "rel-lookup-table-converter"
"""What -Oz does to tables of addresses in position-independent code: an entry becomes a distance, of half the bytes and
without a relocation. Lists leave that to code generation, as the vocabulary says."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A module put together.

    Attributes:
        outcome: its sizes, its functions' and its bitcode.
        lists: what ran on each function while it was apart.
        last: what ran on the whole module then.
        untried: lists of functions, and of the whole module at last, that there was no time for.
    """

    outcome: Outcome
    lists: Mapping[str, PassList]
    last: PassList
    untried: int = 0


def by_function(
    bitcode: bytes,
    lists: Mapping[str, Sequence[PassList]],
    kept: Set[str],
    objective: Objective,
    sandbox: Sandbox,
    links: Callable[[Outcome], bool],
    left: Callable[[], float],
    report: Callable[[int, int], None],
) -> Assembled | None:
    """Choose a list for each function of a module.

    Args:
        bitcode: unoptimised, its functions marked for size.
        lists: for each function what to try, the first among equals; a function without any stays as it is.
        kept: the functions that -Oz leaves in the module. A list that does not inline one of the others keeps it
            alive, so its size counts that one too.
        objective: what to make small.
        sandbox: where lists run.
        links: whether a whole module asks the linker for no more than -Oz's does.
        left: seconds; where they do not suffice for all lists, every function has the first of its own, as many as
            there is time for.
        report: told the functions done and in all.

    Returns:
        The smallest module that came out and links; None where there is none, or the time was over before.

    Raises:
        LLVMError: the module cannot be taken apart; the message says why.
    """
    if left() <= 0:
        return None
    with Module.parse(bitcode) as module, Parts(module) as parts:
        pace = _Pace({name: parts.instructions(name) for name in parts.names}, lists, left)
        chosen: dict[str, PassList] = {}
        dropped = parts.names - kept
        total = sum(map(len, parts.levels))
        for level in parts.levels:
            report(len(chosen), total)
            # All before any is replaced: the order in a level cannot matter.
            counted = {name: parts.source(name, dropped) for name in level}
            sources = {name: parts.source(name) for name in level}
            best = _best(counted, lists, objective, sandbox, pace)
            again = (Job(sources[name], (_cleaned(it),), name, keep=True) for name, it in best.items())
            for job, (outcome,) in sandbox.run(again):
                if outcome.bitcode:
                    parts.put(job.name, outcome.bitcode)
                    chosen[job.name] = best[job.name]
        report(total, total)
        complete = parts.is_complete
        with parts.assemble() as whole:
            versions = list(_versions(whole)) if left() > 0 else [whole.to_bitcode()]
    last = _LAST[: 1 if left() <= 0 else None]
    cut_off = len(_LAST) - len(last)
    if not complete:  # what stayed in the whole module has had no list yet
        last = tuple(PassList.of(load().oz_pipeline) + it for it in last)
    found = _smallest(versions, last, objective, sandbox, links)
    return Assembled(found[0], chosen, found[1], pace.untried + cut_off) if found else None


def _versions(module: Module) -> Iterator[bytes]:
    """The module as it is, and with its equal functions merged; each with distances in its tables of addresses too."""
    yield module.to_bitcode()
    with module.clone() as merged:
        merged.run(_LAST[0])  # functions are equal where equal constants have one name
        if merged.merge_equal():
            yield merged.to_bitcode()
            yield from _with_distances(merged)
    yield from _with_distances(module)


def _with_distances(module: Module) -> Iterator[bytes]:
    """The module with distances in its tables of addresses, if it has any."""
    constants, distances = _TABLES
    module.run(constants)
    before = module.fingerprint()
    module.run(distances)
    if module.fingerprint() != before:
        yield module.to_bitcode()


class _Pace:
    """How many of their lists there is time to try on the functions that wait.

    What was tried tells how long a list takes for an instruction. The functions that come last, the callers, are often
    the largest: were all lists tried on the first, most of the time, and of the gain, would be lost to them.

    Args:
        sizes: of the functions with what they may inline, in instructions.
        lists: of each function.
        left: seconds.
    """

    def __init__(
        self, sizes: Mapping[str, int], lists: Mapping[str, Sequence[PassList]], left: Callable[[], float]
    ) -> None:
        self._sizes = {name: size + _FIXED for name, size in sizes.items()}
        self._lists, self._left = lists, left
        self._all, self._done = left(), 0
        self._waiting = sum(size * len(lists.get(name, ())) for name, size in self._sizes.items())
        self.untried = 0
        """Lists that were cut off."""

    def lists(self, name: str) -> Sequence[PassList]:
        """The lists to try on a function, which waits no more: at least the first."""
        lists = self._lists.get(name, ())
        kept = lists[: max(1, round(self._share() * len(lists)))]
        self._waiting -= self._sizes[name] * len(lists)
        self.untried += len(lists) - len(kept)
        return kept

    def tried(self, name: str, count: int) -> None:
        """Count lists of a function as done."""
        self._done += self._sizes[name] * count

    def _share(self) -> float:
        left = self._left()
        usable, spent = left - _RESERVE * self._all, self._all - left
        if usable <= 0:
            return 0.0
        if math.isinf(left) or not self._done or spent < _TOLD * self._all:
            return 1.0
        return min(1.0, usable * self._done / (spent * max(1, self._waiting)))


def _best(
    sources: Mapping[str, bytes],
    lists: Mapping[str, Sequence[PassList]],
    objective: Objective,
    sandbox: Sandbox,
    pace: _Pace,
) -> dict[str, PassList]:
    """The best list of each function; nothing for one that no list compiles."""

    def job_of(name: str, source: bytes) -> Job:
        return Job(source, tuple(map(_cleaned, pace.lists(name))), name, bytes=objective is Objective.BYTES)

    best: dict[str, PassList] = {}
    for job, outcomes in sandbox.run(job_of(*it) for it in sources.items()):
        pace.tried(job.name, len(outcomes))
        sizes = ((size_of(it, objective), index) for index, it in enumerate(outcomes) if it.ok)
        least = min(sizes, default=None)
        if least is not None:
            best[job.name] = lists[job.name][least[1]]
    return best


def _smallest(
    versions: Iterable[bytes],
    last: Sequence[PassList],
    objective: Objective,
    sandbox: Sandbox,
    links: Callable[[Outcome], bool],
) -> tuple[Outcome, PassList] | None:
    """The smallest of what the last lists make of versions of a module, with the list; the first among equals."""
    jobs = (Job(it, tuple(map(str, last)), functions=True, bytes=True, keep=True) for it in versions)
    compiled = (pair for job in jobs for pair in zip(sandbox.compile(job), last))
    ranked = sorted((it for it in compiled if it[0].ok), key=lambda it: size_of(it[0], objective))
    return next((it for it in ranked if links(it[0])), None)


def _cleaned(passes: PassList) -> str:
    return str(PassList.of(*passes.words, *CLEAN_UP))
