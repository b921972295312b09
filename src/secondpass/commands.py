"""What `secondpass optimize` does with the files it is given, as a function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from secondpass import output
from secondpass.effort import chosen
from secondpass.errors import InputError, LLVMError, SecondpassError
from secondpass.llvm.sandbox import Sandbox
from secondpass.optimize import Result, optimize
from secondpass.progress import Progress
from secondpass.prompt import Form, Objective
from secondpass.strategies.base import Budget
from secondpass.tuner.coreset import coreset

_PATIENCE = 60.0
"""Seconds for a list, -Oz itself among them, where no longest time for a file gives a measure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of a run, as the command line has them; None for what was not said."""

    inputs: tuple[Path, ...]
    output: Path | None = None
    emit: str | None = None
    objective: Objective = Objective.INSTRUCTIONS
    effort: int | None = None
    coreset: int | None = None
    strategy: str | None = None
    samples: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    form: Form | None = None
    budget_seconds: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Optimized:
    """A finished run.

    Attributes:
        results: of the inputs that could be read, in their order; written where that was asked for.
        refused: what was wrong with the others, or with this LLVM for them.
        model: that answered; None where none was asked.
    """

    results: tuple[Result, ...]
    refused: tuple[SecondpassError, ...]
    model: str | None


def optimize_files(request: Request, progress: Progress | None = None) -> Optimized:
    """Make files smaller, each for itself, and write them.

    Raises:
        InputError: an option makes no sense, or the only input, or an output, is at fault.
        LLVMError: this LLVM lacks the only input's target.
        ModelError, ToolchainError: the model or LLVM cannot be used.
    """
    asked = chosen(request.effort, request.coreset, request.strategy, request.samples)
    budget = Budget(seconds=request.budget_seconds)
    targets = dict(zip(request.inputs, output.plan(request.inputs, request.output, request.emit)))
    lists = coreset(request.objective, asked.coreset)
    results, refused = list[Result](), list[SecondpassError]()
    patience = _PATIENCE if math.isinf(asked.seconds) else asked.seconds / 2
    with Sandbox(timeout=patience) as sandbox:
        engine = asked.engine()
        strategy = asked.chosen_strategy(
            engine, request.temperature, request.seed, request.form, top_k=request.top_k, top_p=request.top_p
        )
        for path in request.inputs:
            try:
                result = optimize(
                    path,
                    engine,
                    strategy,
                    sandbox,
                    objective=request.objective,
                    budget=budget,
                    coreset=lists,
                    flags=request.flags,
                    seconds=asked.seconds,
                    progress=progress,
                )
                if path in targets:
                    output.write(targets[path], result, request.flags)
            except (InputError, LLVMError) as error:  # the others are not in vain
                if len(request.inputs) == 1:
                    raise
                refused.append(error)
            else:
                results.append(result)
    return Optimized(tuple(results), tuple(refused), engine.name if engine else None)
