"""A file in, a smaller file out.

Every function the model can read gets its answers. The lists among them that take most off their functions, and every
list of the coreset where that is asked for, are tried on the whole module, the best of them after -Oz too. Then each
function is tried apart from the others with the model's lists for it, the module's best one, and those of the coreset
that left least of it in the whole module; and the module is put together again (`by_function`). The smallest result is
taken; -Oz is one of the candidates, so the result is never larger. All lists run in the sandbox.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path

from secondpass import ir
from secondpass.by_function import by_function
from secondpass.engines.base import Engine
from secondpass.errors import InputError, LLVMError, OzError, PromptTooLong
from secondpass.frontend import is_source, read_ir
from secondpass.llvm.jobs import Job, Outcome, Status
from secondpass.llvm.library import load
from secondpass.llvm.module import FunctionSize, Module
from secondpass.llvm.objects import Beside
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.module_lists import candidates, try_lists
from secondpass.progress import Progress
from secondpass.prompt import Answer, Objective
from secondpass.strategies.base import Attempt, Budget, Function, Session, Strategy

_WHOLE = 20
"""Lists of answers that are tried on the whole module: each compiles every function, and functions get theirs later."""
_MODEL, _MODULE = 0.4, 0.55
"""Shares of the time after which no function is asked about any more, and no list tried on the whole module."""
_LARGE = 0.02
"""The share of the time that -Oz takes of a module on which no list is tried: its functions are to have their own."""
_APART = 5
"""Times -Oz's seconds: with less, taking the module apart and together again leaves no time for any list but -Oz."""
_NO_TIME = "there was no time left"
"""Why the model was not asked about a function."""


@dataclass(frozen=True, slots=True)
class Size:
    """Instructions, bytes of code and data, and those of the rest (None where they were not measured)."""

    instructions: int
    bytes: int | None = None
    beside: Beside | None = None

    def by(self, objective: Objective) -> int:
        """The number that is to be made small."""
        if objective is Objective.INSTRUCTIONS:
            return self.instructions
        assert self.bytes is not None
        return self.bytes


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """One function of the input.

    Attributes:
        name: its symbol.
        source: its size as it came.
        oz: its size in the module after -Oz; None where -Oz removed it.
        best: its size in the module after the best list; None where that removed it.
        attempts: the model's answers for it.
        origin: where the list that leaves the fewest instructions of it alone came from: `answer 1`,
            `answer 1, try 2`, `-Oz`.
        note: why the model read it only in part, or not at all.
        passes: the list that ran on it apart from the others; None where all had the module's alone.
    """

    name: str
    source: Size
    oz: Size | None
    best: Size | None
    attempts: tuple[Attempt, ...] = ()
    origin: str = "-Oz"
    note: str = ""
    passes: PassList | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one input. `best` is never larger than `oz` by the objective.

    Attributes:
        input: the file.
        objective: what was made small.
        source, oz, best: the module's size as it came, after -Oz, and now.
        passes: the list that ran on the module: after the functions' own, where these have any.
        origin: who proposed it.
        functions: of the input.
        bitcode: the result.
        warnings: clang's.
        note: what was not done, and why: a module that cannot be taken apart, no time; empty where all was done.
        seconds: wall time by stage.
        runners_up: the next best modules that came out, as bitcode, the best first.
    """

    input: Path
    objective: Objective
    source: Size
    oz: Size
    best: Size
    passes: PassList
    origin: str
    functions: tuple[FunctionResult, ...]
    bitcode: bytes
    warnings: str
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    runners_up: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the model was asked about one function.

    Attributes:
        attempts: its answers.
        oz: what -Oz makes of the function alone; None where that fails.
        note: why it has read the function only in part, or was not asked.
    """

    attempts: tuple[Attempt, ...] = ()
    oz: int | None = None
    note: str = ""

    def answered(self) -> Iterator[tuple[PassList, str, int]]:
        """The valid lists of the answers, which attempt each is of, and what it takes off the function at -Oz."""
        for attempt in self.attempts:
            answer, target = attempt.verdict.answer, attempt.verdict.target
            if isinstance(answer, Answer) and target is not None:
                yield answer.passes, attempt.origin, max((self.oz or target) - target, 0)

    @property
    def origin(self) -> str:
        """Which attempt was the first to be best for the function alone; -Oz where none beat it."""
        least, origin = self.oz, "-Oz"
        for attempt in self.attempts:
            target = attempt.verdict.target
            if target is not None and (least is None or target < least):
                least, origin = target, attempt.origin
        return origin


def optimize(
    path: Path,
    engine: Engine | None,
    strategy: Strategy,
    sandbox: Sandbox,
    *,
    objective: Objective = Objective.INSTRUCTIONS,
    budget: Budget | None = None,
    coreset: Sequence[PassList] = (),
    flags: Sequence[str] = (),
    marked: bool = False,
    seconds: float = math.inf,
    runners_up: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Make one file smaller than -Oz does.

    Args:
        path: C, C++, IR text or bitcode.
        engine: who writes the answers; None for no answers: -Oz and the coreset alone.
        strategy: which answers to ask for.
        sandbox: where everything is compiled.
        objective: what to make small.
        budget: what the strategy may spend on a function; None for no limit of its own.
        coreset: lists to try on the module besides the model's, and those that promise most on each function.
        flags: for clang, with C and C++ inputs.
        marked: whether IR has its functions marked for size, as clang -Oz does it; else they are marked here.
        seconds: after these nothing is tried any more but -Oz, and the result's note says so. The model has two fifths
            of them, the rest is for choosing.
        runners_up: how many of the next best modules are wanted too, each of another size.
        progress: told how far the work is.

    Raises:
        InputError: the file cannot be read, compiled or verified, or -Oz itself fails on it.
        LLVMError: the library lacks the module's target.
    """
    report = progress or _silent
    clock = _Clock(seconds)
    data, warnings = read_ir(path, flags)
    job = Job(data, ("",), str(path), mark_for_size=not (marked or is_source(path)), functions=True, keep=True)
    source = _first_of(sandbox.compile(job), path)
    clock.lap("read")
    with Module.parse(source.bitcode or b"", str(path)) as module:
        try:
            load().target_machine(module.triple.encode(), pic=False)  # said before any work is done
        except LLVMError as error:
            raise LLVMError(f"{path}: {error}") from error
        if not source.functions:
            raise InputError(f"{path}: it defines no function; there is nothing to optimise")
        oz = _oz(source, path, sandbox)
        clock.lap("oz")
        if module.keep_own_library():  # in all lists but -Oz's own
            source = replace(source, bitcode=module.to_bitcode())
        asked = _ask(module, engine, strategy, budget, sandbox, objective, clock, report)
        clock.lap("model")
        proposed = _answered(asked)
        for number, passes in enumerate(coreset, 1):
            proposed.setdefault(passes, f"coreset list {number}")
        first = candidates(module, proposed)
    links = _Links(oz, objective)
    share = _MODULE if oz.seconds < clock.seconds(_LARGE) else 0.0
    whole = try_lists(
        first,
        source.bitcode or b"",
        oz,
        objective,
        sandbox,
        links,
        lambda: clock.is_over(share),
        partial(report, "trying lists on the module"),
        1 + runners_up,
    )
    best, passes, origin = oz, PassList.of(load().oz_pipeline), "-Oz"
    if whole.smallest:
        best, winner = whole.smallest[0]
        passes, origin = winner.passes, winner.origin
    others, untried = [it for it, _ in whole.smallest[1:]], whole.untried
    clock.lap("compile")
    apart: Mapping[str, PassList] = {}
    note = ""
    try:
        lists = {name: _lists(about, passes, whole.promising(name, coreset)) for name, about in asked.items()}
        progressed = partial(report, "choosing a list for each function")
        kept = {it.name for it in oz.functions}
        enough = clock.left() > _APART * oz.seconds
        made = None
        if enough:
            made = by_function(source.bitcode or b"", lists, kept, objective, sandbox, links, clock.left, progressed)
        untried += made.untried if made else not enough
        if made:
            other = made.outcome
            if _rank(made.outcome, objective) < _rank(best, objective):
                other, best, apart = best, made.outcome, made.lists
                passes, origin = made.last, "a list for each function, then"
            others.append(other)
    except LLVMError as error:
        note = f"no function has a list of its own: {error}"
    if untried or any(it.note == _NO_TIME for it in asked.values()):
        note = f"{note or 'some lists were not tried'}; there are {seconds:g} s for all of them"
    others.sort(key=lambda it: _size(it).by(objective))
    clock.lap("functions")
    return Result(
        input=path,
        objective=objective,
        source=Size(source.instructions),
        oz=_size(oz),
        best=_size(best),
        passes=passes,
        origin=origin,
        functions=_functions(source, oz, best, asked, apart),
        bitcode=best.bitcode or b"",
        warnings=warnings,
        note=note,
        seconds=clock.laps(),
        runners_up=tuple(it.bitcode or b"" for it in others[:runners_up]),
    )


def _silent(_what: str, _done: int, _total: int) -> None:
    """No progress is shown."""


class _Clock:
    """Wall seconds by stage, and whether they are over."""

    def __init__(self, limit: float) -> None:
        self._started = self._last = time.perf_counter()
        self._limit = limit
        self._laps: dict[str, float] = {}

    def seconds(self, share: float) -> float:
        """A share of the time."""
        return share * self._limit

    def left(self, share: float = 1.0) -> float:
        """Seconds, of a share of the time."""
        return self._started + self.seconds(share) - time.perf_counter()

    def is_over(self, share: float = 1.0) -> bool:
        """Whether a share of the time is."""
        return self.left(share) < 0

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def laps(self) -> dict[str, float]:
        return self._laps | {"total": self._last - self._started}


def _rank(made: Outcome, objective: Objective) -> tuple[int, int]:
    """By the objective; among equals what could become a constant, and did not, decides."""
    with Module.parse(made.bitcode or b"") as module:
        return _size(made).by(objective), module.variables


class _Links:
    """Whether a module can take the place of -Oz's.

    It links wherever that one does: code may count on it that -Oz drops calls that are never made. And where bytes
    count, no more of its variables may be written: what -Oz makes a constant of costs no memory while it runs.
    """

    def __init__(self, oz: Outcome, objective: Objective) -> None:
        undefined, variables = _needs(oz)
        self._undefined = undefined
        self._variables = variables if objective is Objective.BYTES else math.inf

    def __call__(self, made: Outcome) -> bool:
        undefined, variables = _needs(made)
        return undefined <= self._undefined and variables <= self._variables


def _needs(outcome: Outcome) -> tuple[set[str], int]:
    """What a module asks the linker for, and how many variables it has."""
    with Module.parse(outcome.bitcode or b"") as module:
        return module.undefined, module.variables


def _first_of(outcomes: list[Outcome], path: Path) -> Outcome:
    outcome = outcomes[0]
    if outcome.ok:
        return outcome
    said = outcome.message if str(path) in outcome.message else f"{path}: {outcome.message}"
    raise InputError(f"{said} ({outcome.status})" if outcome.status != "invalid" else said)


def _oz(source: Outcome, path: Path, sandbox: Sandbox) -> Outcome:
    pipeline = load().oz_pipeline
    job = Job(source.bitcode or b"", (pipeline,), str(path), functions=True, bytes=True, keep=True)
    outcome = sandbox.compile(job)[0]
    if outcome.status is Status.TIMEOUT:
        raise InputError(f"{path}: LLVM's own -Oz fails: {outcome.message}")
    if not outcome.ok:
        raise OzError(f"{path}: LLVM's own -Oz makes nothing of this module: {outcome.status}: {outcome.message}")
    return outcome


def _ask(
    module: Module,
    engine: Engine | None,
    strategy: Strategy,
    budget: Budget | None,
    sandbox: Sandbox,
    objective: Objective,
    clock: _Clock,
    report: Progress,
) -> dict[str, _Asked]:
    """Ask the model about every function, in the module's order."""
    if engine is None:
        return {it.name: _Asked() for it in module.functions()}
    asked: dict[str, _Asked] = {}
    total = len(module.functions())
    for done, (name, part) in enumerate(module.split()):
        report("asking the model", done, total)
        if clock.is_over(_MODEL):
            part.close()
            asked[name] = _Asked(note=_NO_TIME)
            continue
        with part:
            function = Function(name, ir.normalise(part.to_text()), part.to_bitcode())
        oz = sandbox.compile(Job(function.bitcode, (load().oz_pipeline,)))[0]
        alone = oz.instructions if oz.ok else None
        session = Session(engine, function, sandbox, _within(budget, clock.left(_MODEL)), objective=objective)
        with suppress(PromptTooLong):
            session.work(strategy)
        unread = session.unread
        note = _NO_TIME if clock.is_over(_MODEL) else ""
        if unread:
            note = f"too long for the model: {unread.tokens:,} of {unread.context_length:,} tokens"
        asked[name] = _Asked(tuple(session.attempts), alone, note)
    report("asking the model", total, total)
    return asked


def _within(budget: Budget | None, left: float) -> Budget:
    """A budget of which the seconds end when these are over."""
    budget = budget or Budget()
    if math.isinf(left):
        return budget
    return replace(budget, seconds=max(min(left, budget.seconds or left), 0.001))


def _answered(asked: dict[str, _Asked]) -> dict[PassList, str]:
    """The lists that take most off the functions they are for, and where they come from."""
    gains: dict[PassList, int] = {}
    origins: dict[PassList, str] = {}
    for name, about in asked.items():
        for passes, origin, gain in about.answered():
            gains[passes] = gains.get(passes, 0) + gain
            origins.setdefault(passes, f"{origin} for {name}")
    return {it: origins[it] for it in sorted(gains, key=gains.__getitem__, reverse=True)[:_WHOLE]}


def _lists(about: _Asked, best: PassList, promising: Sequence[PassList]) -> list[PassList]:
    """What to try on one function: -Oz, the module's best list, what the model said of it and what else promises much.

    These two take turns, as there may be time for the first lists alone.
    """
    said = [passes for passes, _, _ in about.answered()]
    both = chain.from_iterable(zip_longest(said, promising))
    return [it for it in dict.fromkeys((PassList.of(load().oz_pipeline), best, *both)) if it is not None]


def _functions(
    source: Outcome, oz: Outcome, best: Outcome, asked: dict[str, _Asked], apart: Mapping[str, PassList]
) -> tuple[FunctionResult, ...]:
    after_oz = {it.name: it for it in oz.functions}
    after_best = {it.name: it for it in best.functions}
    return tuple(
        FunctionResult(
            name=it.name,
            source=Size(it.instructions),
            oz=_size_of(after_oz.get(it.name)),
            best=_size_of(after_best.get(it.name)),
            attempts=asked[it.name].attempts,
            origin=asked[it.name].origin,
            note=asked[it.name].note,
            passes=apart.get(it.name),
        )
        for it in source.functions
    )


def _size(outcome: Outcome) -> Size:
    return Size(outcome.instructions, outcome.bytes, outcome.beside)


def _size_of(function: FunctionSize | None) -> Size | None:
    return Size(function.instructions, function.bytes) if function is not None else None
