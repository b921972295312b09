"""What nearly every list can still be given: tails of passes behind it, and an end where the value is least.

A list leads a function through states, and the last of them is not always the smallest; what a list leaves undone,
the same few passes often do, whatever the list. So each list is walked pass by pass, a tail behind it, and then other
tails behind the best of the states that all lists came through; the best of all states is kept, with the passes that
lead there. That costs some ten passes a list and some fifty a function, a small part of what a model's answer costs,
and finds more than a second answer does (docs/experiments.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Outcome, Status
from secondpass.llvm.passes import Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.prompt import Objective
from secondpass.tuner.explorer import Explorer
from secondpass.tuner.search import Found, Search
from secondpass.tuner.tails import Tails
from secondpass.tuner.work import Item, Searched, forget_stderr, outcomes

_CONFIRMED = 2
"""Best states whose lists are compiled in one piece."""
_STEP_SECONDS = 10.0
_FEWEST, _WORK = 2, 30_000
"""Other tails on the largest functions, and on the others: as many as lead over so many instructions."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Try a function's lists, each finished. Called in a worker with its bitcode and an `Item`.

    Attributes:
        objective: what to make small.
        tails: what runs behind the lists.
        seconds: after these nothing new is tried.
        compiles: lists it may try.
    """

    objective: Objective
    tails: Tails
    seconds: float = math.inf
    compiles: float = math.inf

    def __call__(self, bitcode: bytes, text: str) -> Outcome:
        """The best list, as it is compiled in one piece: in rare cases that is not what its passes do one by one."""
        item, started = Item.from_text(text), time.perf_counter()
        forget_stderr()
        try:
            with Explorer(bitcode, self.objective, _STEP_SECONDS) as explorer:
                search = Search(explorer, item.banned)
                found: list[Found] = []
                for words in item.lists:
                    if self._is_over(search, started):
                        break
                    found += search.confirmed([words], 1)
                    search.try_list((*words, *self.tails.first))
                self._follow(search, explorer.root.instructions, started)
                best = [explorer.useful(words) or words for _, words in islice(search.ranked(), _CONFIRMED)]
                found = sorted([*found, *search.confirmed(best, _CONFIRMED)], key=_rank)
        except LLVMError as error:
            return Outcome(Status.INVALID, str(error))
        if not found:
            return Outcome(Status.BROKEN, "no list can be used on it")
        seconds = time.perf_counter() - started
        return Searched(Status.OK, seconds=seconds, found=tuple(found[:1]), compiles=search.compiles)

    def _is_over(self, search: Search, started: float) -> bool:
        left = self.compiles - search.compiles - _CONFIRMED
        return left < 1 or time.perf_counter() - started > self.seconds

    def _follow(self, search: Search, instructions: int, started: float) -> None:
        """Try the other tails behind the best state, and in turn behind one of the next best: several ways lead on."""
        for number, tail in enumerate(self.tails.others[: max(_FEWEST, _WORK // instructions)]):
            ranked = list(islice(search.ranked(), number // 2 + 2))
            if ranked and not self._is_over(search, started):
                _, words = ranked[0 if number % 2 == 0 else -1]
                search.try_list((*words, *tail))


def _rank(found: Found) -> tuple[int, int]:
    return found.value, len(found.passes)


def finished(
    lists: Mapping[str, Iterable[Words]], source: Callable[[str], bytes], unit: Finish, sandbox: Sandbox
) -> Iterator[tuple[str, Outcome]]:
    """Finish the lists of many functions.

    Args:
        lists: each function's, under a key of its own.
        source: a function's module.
        unit: what to do with it.
        sandbox: where.

    Returns:
        Keys as they are done, each with a `Searched` of one list, or why there is none.
    """
    items = {key: Item(key, lists=tuple(it)) for key, it in lists.items()}
    return outcomes(items, source, unit, sandbox.run)
