"""Functions to look at: those on which a first answer gains and loses most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secondpass.code_check import Printed, print_normal_form
from secondpass.evaluate.cases import Case, Trials
from secondpass.llvm.jobs import Job
from secondpass.llvm.passes import PassList
from secondpass.llvm.sandbox import Sandbox
from secondpass.page import Example


def examples(cases: Sequence[Case], trials: Mapping[str, Trials], most: int) -> tuple[list[Example], list[Example]]:
    """The functions with the largest gain over -Oz, and with the largest loss, by the first answers.

    Args:
        cases: the functions.
        trials: of each, by key.
        most: examples of each kind.
    """
    ranked = sorted((it for it in cases if trials[it.key].tried), key=lambda it: _lost(it, trials[it.key]))
    best = [it for it in ranked[:most] if _lost(it, trials[it.key]) < 0]
    worst = [it for it in reversed(ranked[-most:]) if _lost(it, trials[it.key]) > 0]
    with Sandbox(1) as sandbox:
        gained = [_example(it, trials[it.key], sandbox) for it in best]
        return gained, [_example(it, trials[it.key], sandbox) for it in worst]


def _lost(case: Case, trials: Trials) -> int:
    """Instructions more than at -Oz; an answer that cannot be used leaves the function as it was."""
    count = trials.tried[0].count
    return (case.source if count is None else count) - case.oz


def _example(case: Case, trials: Trials, sandbox: Sandbox) -> Example:
    answer = trials.tried[0]
    passes = str(PassList.of(*answer.passes))
    (outcome,) = sandbox.compile(Job(case.bitcode, (passes,), keep=True))
    after = ""
    if outcome.ok and outcome.bitcode is not None:
        (printed,) = sandbox.compile(Job(outcome.bitcode, ("",), each=print_normal_form))
        after = printed.text if isinstance(printed, Printed) else ""
    reached = "not usable with the answer" if answer.count is None else f"{answer.count} with the answer"
    foreseen = "" if answer.target is None else f", {answer.target} foreseen"
    title = (
        f"{case.project} {case.key}: {case.source} unoptimised, {case.oz} at -Oz, {reached}"
        f"{foreseen}, {case.best} with the autotuner's list"
    )
    return Example(title, passes, case.text, after)
