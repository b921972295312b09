"""What each pass of a list did to a module, and the shortest list found that does as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secondpass.errors import InputError
from secondpass.frontend import is_source, read_ir
from secondpass.llvm.jobs import Job, Outcome
from secondpass.llvm.library import load
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Step:
    """The module after one more element of the list.

    Attributes:
        word: the element; empty for the module as it came.
        outcome: its size then, or how the element failed.
    """

    word: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Explanation:
    """A list taken apart.

    Attributes:
        input: the file.
        passes: the list.
        steps: the module as it came, then after each element; the last is the first that failed.
        oz: what -Oz makes of the module.
        minimal: a sublist that is as small in instructions and bytes, of which no element can go; None where the list
            fails.
    """

    input: Path
    passes: PassList
    steps: tuple[Step, ...]
    oz: Outcome
    minimal: PassList | None


def explain(path: Path, passes: PassList, sandbox: Sandbox, *, flags: Sequence[str] = ()) -> Explanation:
    """Run a list element by element, then remove what does nothing.

    Raises:
        InputError: the file cannot be read or compiled, or this LLVM lacks a pass of the list.
    """
    missing = load().missing_from(passes)
    if missing:
        raise InputError(f"LLVM {load().version} has no pass '{missing[0]}'; `secondpass passes` shows what it has")
    data, _ = read_ir(path, flags)
    mark = not is_source(path)
    prefixes = [passes[:end] for end in range(len(passes) + 1)]
    lists = (*map(str, prefixes), load().oz_pipeline)
    *outcomes, oz = sandbox.compile(Job(data, lists, str(path), mark_for_size=mark, bytes=True))
    if not outcomes[0].ok:
        said = outcomes[0].message
        raise InputError(said if str(path) in said else f"{path}: {said}")
    steps: list[Step] = []
    for word, outcome in zip(("", *passes.words), outcomes):
        steps.append(Step(word, outcome))
        if not outcome.ok:
            break
    minimal = _minimal(data, passes, outcomes[-1], path, sandbox, mark) if outcomes[-1].ok else None
    return Explanation(path, passes, tuple(steps), oz, minimal)


def _minimal(data: bytes, passes: PassList, whole: Outcome, path: Path, sandbox: Sandbox, mark: bool) -> PassList:
    """Drop elements while neither number grows, from the end, until no single one can go."""
    while len(passes):
        shorter = [passes.without(index) for index in reversed(range(len(passes)))]
        job = Job(data, tuple(map(str, shorter)), str(path), mark_for_size=mark, bytes=True)
        as_good = (it for it, outcome in zip(shorter, sandbox.compile(job)) if _no_larger(outcome, whole))
        following = next(as_good, None)
        if following is None:
            break
        passes = following
    return passes


def _no_larger(outcome: Outcome, whole: Outcome) -> bool:
    return outcome.ok and outcome.instructions <= whole.instructions and (outcome.bytes or 0) <= (whole.bytes or 0)
