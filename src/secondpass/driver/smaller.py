"""An object smaller than clang's, of the same source: optimised by us, native code by the same clang."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from secondpass.driver.attributes import suited
from secondpass.driver.codegen import (
    Options,
    names_of,
    refusal,
    set_by,
    smallest,
    unsuitable,
    usual,
    words_of,
)
from secondpass.driver.machines import learned_for
from secondpass.effort import effort
from secondpass.errors import OzError, SandboxError, ToolchainError
from secondpass.llvm import objects
from secondpass.prompt import Objective

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

_CLANGS = 10
"""How many times as long as clang a file may take, where effort gives it less: a large file, or a busy machine."""
_THREADS = 1
"""A build runs a compiler on every core already; and a model without threads of its own is whole after a fork."""
_LISTS = 0.75
"""The share of the time for lists; the rest is for options of code generation."""
_RUNNERS_UP = 1
"""Modules besides the smallest one that code generation with options is tried on: one may suit them better."""
_PATIENCE = 5.0
"""Seconds for code generation with options, where ten times those without are less: few options are that slow."""
_LATEST = ("-Xclang", "-disable-llvm-passes", "-w", "-c", "-fno-crash-diagnostics")


@dataclass(frozen=True, slots=True)
class Smaller:
    """An object smaller than clang's, as far as we know.

    Attributes:
        image: the object.
        options: of code generation, that made it smaller still.
        note: what was not done for it; empty where all was.
    """

    image: bytes
    options: Options
    note: str


def smaller(
    clang: Sequence[str],
    options: Sequence[str],
    source: str,
    language: str,
    optimised: str,
    level: int,
    folder: Path,
    clang_seconds: float,
    *,
    codegen: bool,
    fits: Callable[[bytes], bool] = lambda _: True,
) -> Smaller:
    """Compile a source with all its options, in a process that is there for this alone (`apart`).

    Args:
        clang: the compiler's command.
        options: of the command line, without files, outputs and dependencies.
        source: the file, as the command names it.
        language: as `-x` names it.
        optimised: the optimisation level at which clang reads it: -Oz, or that of a precompiled header.
        level: of effort.
        folder: for what is of no use later.
        clang_seconds: what clang took for the same source.
        codegen: whether options of code generation are tried.
        fits: whether an object can take the place of clang's.

    Raises:
        ToolchainError: there is no libLLVM, or clang does not take a step that it need not take alone.
        SecondpassError: the module cannot be optimised.
    """
    from secondpass.llvm.forked import emitted
    from secondpass.llvm.library import load
    from secondpass.llvm.module import Module
    from secondpass.llvm.sandbox import Sandbox
    from secondpass.optimize import optimize
    from secondpass.tuner.coreset import coreset

    asked, started = effort(level), time.monotonic()
    longest = max(asked.seconds, _CLANGS * clang_seconds)
    load()  # the sandbox's process has it then, and what is wrong with it is said here

    def is_over() -> bool:
        return time.monotonic() - started > longest

    module, native = module_path(folder, source), folder / "native.o"
    _run([*clang, *options, optimised, *_LATEST, "-emit-llvm", "-o", str(module), "-x", language, source])
    with Module.parse(module.read_bytes(), str(module)) as written:
        triple = written.triple
        placed = written.has_attribute("cold") or written.has_attribute("hot")
    in_force = usual(triple, options) if codegen else ()  # lists are compared by the code that will be made of them
    with Sandbox(1, longest / 2, fork=True, options=in_force) as sandbox:
        engine = asked.engine(_THREADS)
        lists = coreset(Objective.BYTES, asked.coreset)
        result = optimize(
            module,
            engine,
            asked.chosen_strategy(engine),
            sandbox,
            objective=Objective.BYTES,
            coreset=lists,
            marked=optimised == "-Oz",
            seconds=_LISTS * longest,
            runners_up=_RUNNERS_UP if codegen else 0,
        )

        given = set_by(options)
        patience: float | None = None

        def allowed() -> float | None:
            return None if patience is None else min(patience, max(_PATIENCE, started + longest - time.monotonic()))

        def generate(bitcode: bytes, chosen: Options) -> bytes:
            nonlocal patience
            module.write_bytes(bitcode)
            words = [*options, *words_of(chosen), "-Oz", *_LATEST, "-Qunused-arguments"]
            began = time.monotonic()
            _run([*clang, *words, "-o", str(native), "-x", "ir", str(module)], allowed())
            if patience is None:  # without options, as it always begins
                patience = max(_PATIENCE, _CLANGS * (time.monotonic() - began))
            return native.read_bytes()

        parsed = cache(Module.parse)

        def made_here(module: Module, chosen: Options) -> bytes | None:
            return emitted(module, (*given, *chosen), allowed())

        def generate_here(bitcode: bytes, chosen: Options) -> bytes:
            image = made_here(parsed(bitcode), chosen)
            if image is None:
                raise ToolchainError("LLVM makes no code with these options")
            return image

        def suit(bitcode: bytes, chosen: Options) -> bytes:
            def text_sizes(module: Module) -> Mapping[str, int] | None:
                image = made_here(module, chosen)
                return None if image is None else objects.text_sizes(image)

            return suited(parsed(bitcode), text_sizes, is_over) or bitcode

        modules = [result.bitcode, *result.runners_up]
        if codegen:
            learned, left_out = learned_for(triple), names_of(given)
            for bitcode in modules:
                left_out |= unsuitable(parsed(bitcode), placed=placed)
            wanted = islice(cycle(learned.changes), asked.changes)
            made = smallest(generate, modules, learned.first, wanted, left_out, is_over, fits, generate_here, suit)
        else:
            made = smallest(generate, modules, fits=fits)
        notes = [result.note] if result.note else []
        if made.untried:
            notes.append(f"no time for {made.untried} changes of options of code generation")
        return Smaller(made.image, made.options, "; ".join(notes))


def module_path(folder: Path, source: str) -> Path:
    """Where the bitcode of a source lies meanwhile; errors name it."""
    return folder / f"{Path(source).stem}.bc"


def apart(work: Callable[..., Smaller], *, codegen: bool) -> Smaller:
    """Do work in a process of its own: a module that kills LLVM there costs an object of ours, not the build.

    Where LLVM fails with options of code generation in force, it is done without.

    Args:
        work: `smaller` with all but the argument `codegen`.
        codegen: whether options of code generation are tried.

    Raises:
        SandboxError: the process died.
        SecondpassError: as the work does.
    """
    try:
        return _apart(partial(work, codegen=codegen))
    except OzError:
        if not codegen:
            raise
        made = _apart(partial(work, codegen=False))
        note = "; ".join(filter(None, (made.note, "LLVM fails with options of code generation: there are none")))
        return replace(made, note=note)


def _apart(work: Callable[[], Smaller]) -> Smaller:
    context = multiprocessing.get_context("fork")  # there is one thread, and nothing that a child could not have
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, work))
    process.start()
    theirs.close()
    found: Smaller | Exception | None = None
    with ours, suppress(EOFError):
        found = ours.recv()
    process.join()
    if found is None:
        raise SandboxError(f"its optimiser ended with code {process.exitcode}")
    if isinstance(found, Exception):
        raise found
    return found


def _send(connection: Connection, work: Callable[[], Smaller]) -> None:
    from secondpass.llvm.fresh import begin_fork

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who started this says what there is to say
    begin_fork()  # nobody else would take the result
    try:
        found: Smaller | Exception = work()
    except Exception as error:
        found = error
    connection.send(found)


def sizes(before: bytes, after: bytes) -> dict[str, tuple[int, int]]:
    """Bytes of every function in two objects, by name; 0 where it is not there."""
    old, new = objects.function_sizes(before), objects.function_sizes(after)
    return {name: (old.get(name, 0), new.get(name, 0)) for name in sorted({*old, *new})}


def load_model(level: int) -> None:
    """Load what a level of effort needs, for the forks of this process."""
    effort(level).engine(_THREADS)


def _run(command: Sequence[str], seconds: float | None = None) -> None:
    try:
        run = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"clang takes longer than {seconds:g} s for a step of ours") from error
    if run.returncode:
        raise refusal(run.stderr.decode("utf-8", "replace").strip())
