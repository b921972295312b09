"""Lists on a whole module: the smallest results, and which lists suit each of its functions.

A list that leaves much of a function in the whole module seldom suits it alone. So each function is tried apart
(`by_function`) with a few of all lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective

_CHUNK, _CHUNK_SECONDS = 16, 2.0
"""Lists that are tried at a time, and how long they may take together, as -Oz tells: time is looked at between them."""
_AFTER_OZ = 3
"""Lists that are tried after -Oz too: those that are smallest alone."""
_EQUALS, _SPARE = 4, 3
"""Results of one size among which bytes decide, and further sizes that are kept, where a list may break code
generation and that is yet to be found out."""
_PROMISING = 4
"""Sizes of a function, the smallest ones, of which a list is tried on it apart from the others."""
_MERGES = "mergefunc"
"""Makes calls of another function of functions that are equal to it: one that may be replaced when it is loaded, or
looks at its own frame, is not. -Oz does not have it, so whole modules do without."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A list for the whole module, who proposed it, and the list of which it is a form: alone, or after -Oz."""

    passes: PassList
    origin: str
    of: PassList


@dataclass(frozen=True, slots=True)
class Tried:
    """What lists do to a module.

    Attributes:
        smallest: the smallest results, each of another size, the best first; none where no list is better than -Oz.
        functions: what each list leaves of every function of which that is known: of itself, neither of its callees
            nor of its data.
        untried: candidates that there was no time for.
    """

    smallest: list[tuple[Outcome, Candidate]]
    functions: Mapping[PassList, Mapping[str, int]]
    untried: int

    def promising(self, name: str, lists: Iterable[PassList]) -> list[PassList]:
        """Of some lists those worth a try on a function alone, the one that left least of it first.

        Of lists that left as much of it in the whole module it is the first one. Those of which that is not known
        follow: they were not tried there, or did away with the function.
        """
        first: dict[int, PassList] = {}
        unknown: list[PassList] = []
        for passes in lists:
            size = self.functions[passes].get(name) if passes in self.functions else None
            if size is None:
                unknown.append(passes)
            else:
                first.setdefault(size, passes)
        return [first[size] for size in sorted(first)[:_PROMISING]] + unknown


def candidates(module: Module, lists: Mapping[PassList, str]) -> list[Candidate]:
    """What to try first: lists with who proposed them, alone; after -Oz where a module cannot do without.

    Args:
        module: unoptimised.
        lists: with who proposed them.
    """
    # What no list of a model may leave out: calls that must be inlined, coroutines to be lowered.
    inlines = module.has_attribute("alwaysinline") or module.inlines_calls
    first = PassList.of("always-inline") if inlines else PassList()
    alone = [Candidate(first + it, origin, it) for it, origin in lists.items() if _MERGES not in it.words]
    return list(map(_after_oz, alone)) if module.has_attribute("presplitcoroutine") else alone


def try_lists(
    first: Sequence[Candidate],
    bitcode: bytes,
    oz: Outcome,
    objective: Objective,
    sandbox: Sandbox,
    links: Callable[[Outcome], bool],
    is_over: Callable[[], bool],
    report: Callable[[int, int], None],
    wanted: int,
) -> Tried:
    """Try lists on a module, then the best of them after -Oz.

    Args:
        first: what to try.
        bitcode: the module, unoptimised.
        oz: what -Oz makes of it.
        objective: what to make small.
        sandbox: where lists run.
        links: whether a result asks the linker for no more than -Oz's does.
        is_over: whether there is no time for more.
        report: told the lists done and in all.
        wanted: results.
    """
    functions: dict[PassList, dict[str, int]] = {}
    ranked: list[tuple[int, int, Candidate]] = []
    smallest = _Smallest(size_of(oz, objective), objective, links, wanted)
    together = max(1, min(_CHUNK, int(_CHUNK_SECONDS / max(oz.seconds, 1e-3))))
    measure = objective is Objective.BYTES
    done, total = 0, len(first) + min(len(first), _AFTER_OZ)

    def compiled(some: Sequence[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
        nonlocal done
        parts = [some[start : start + together] for start in range(0, len(some), together)]
        jobs = (
            Job(bitcode, tuple(str(it.passes) for it in part), str(at), functions=True, bytes=measure, keep=True)
            for at, part in enumerate(parts)
        )
        for job, outcomes in sandbox.run(takewhile(lambda _: not is_over(), jobs)):
            done += len(outcomes)
            report(done, total)
            yield from ((candidate, it) for candidate, it in zip(parts[int(job.name)], outcomes) if it.ok)

    for candidate, outcome in compiled(first):
        ranked.append((size_of(outcome, objective), len(candidate.passes), candidate))
        left = ((it.name, it.bytes if measure else it.instructions) for it in outcome.functions)
        functions[candidate.of] = {name: size for name, size in left if size is not None}
        smallest.see(outcome, candidate)
    best = [candidate for *_, candidate in sorted(ranked, key=lambda row: row[:2])[:_AFTER_OZ]]
    known = {it.passes for it in first}
    again = [it for it in map(_after_oz, best) if it.passes not in known]
    for candidate, outcome in compiled(again):
        smallest.see(outcome, candidate)
    return Tried(smallest.finished(sandbox), functions, len(first) + len(again) - done)


class _Smallest:
    """The smallest of the results that come by.

    Args:
        limit: what a result has to be smaller than.
        objective: what is to be small; among equals the other number decides.
        links: whether a result asks the linker for no more than -Oz's does.
        wanted: results, each of another size.
    """

    def __init__(self, limit: int, objective: Objective, links: Callable[[Outcome], bool], wanted: int) -> None:
        self._limit, self._objective, self._links, self._wanted = limit, objective, links, wanted
        # Where bytes are not known yet they decide among equals, and some results may turn out to have none.
        known = objective is Objective.BYTES
        self._sizes, self._equals = (wanted, 1) if known else (wanted + _SPARE, _EQUALS)
        self._kept: dict[int, list[tuple[Outcome, Candidate]]] = {}

    def see(self, outcome: Outcome, candidate: Candidate) -> None:
        """Keep a result that is among the smallest so far."""
        size = size_of(outcome, self._objective)
        beyond = len(self._kept) == self._sizes and size > max(self._kept)
        if size >= self._limit or beyond or not self._links(outcome):
            return
        equal = [*self._kept.get(size, ()), (outcome, candidate)]
        ranked = sorted(equal, key=lambda pair: (pair[0].instructions, len(pair[1].passes)))
        self._kept[size] = ranked[: self._equals]
        if len(self._kept) > self._sizes:
            del self._kept[max(self._kept)]

    def finished(self, sandbox: Sandbox) -> list[tuple[Outcome, Candidate]]:
        """Those of which native code can be made, the best first, with the bytes of that."""
        found: list[tuple[Outcome, Candidate]] = []
        for size in sorted(self._kept):
            if len(found) == self._wanted:
                break
            made = [(_measured(it, sandbox), candidate) for it, candidate in self._kept[size]]
            good = [pair for pair in made if pair[0].ok]
            if good:
                found.append(min(good, key=lambda pair: (pair[0].instructions, pair[0].bytes or 0)))
        return found


def _measured(outcome: Outcome, sandbox: Sandbox) -> Outcome:
    """A result with its bytes."""
    if outcome.bytes is not None:
        return outcome
    return sandbox.compile(Job(outcome.bitcode or b"", ("",), functions=True, bytes=True, keep=True))[0]


def size_of(outcome: Outcome, objective: Objective) -> int:
    """The number that is to be made small."""
    size = outcome.bytes if objective is Objective.BYTES else outcome.instructions
    assert size is not None  # measured where it is the objective
    return size


def _after_oz(candidate: Candidate) -> Candidate:
    oz = PassList.of(load().oz_pipeline)
    return Candidate(oz + candidate.of, f"{candidate.origin}, after -Oz", candidate.of)
