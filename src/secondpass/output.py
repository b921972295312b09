"""Where results are written: planned before the work, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secondpass.errors import InputError
from secondpass.files import has_place, write_whole
from secondpass.frontend import is_source, native_code
from secondpass.llvm.module import Module
from secondpass.optimize import Result

_SUFFIXES = {"ll": ".ll", "bc": ".bc", "obj": ".o", "asm": ".s"}


@dataclass(frozen=True, slots=True)
class Target:
    """One output: where, and what kind (`ll`, `bc`, `obj`, `asm`)."""

    path: Path
    kind: str


def plan(inputs: Sequence[Path], output: Path | None, emit: str | None) -> list[Target]:
    """The outputs of a run, one an input; none where nothing was asked for.

    Raises:
        InputError: they contradict each other, or cannot be written.
    """
    if output is None and emit is None:
        return []
    if output == Path("-"):
        raise InputError("-o -: results are written to files; name one")
    several = len(inputs) > 1
    if several and output is not None and not output.is_dir():
        raise InputError(f"-o {output}: with several inputs this must be a folder that exists")
    kind = emit or _kind_of(output)
    folder = output if output is not None and output.is_dir() else None
    if output is not None and folder is None:
        targets = [Target(output, kind)]
    else:
        targets = [Target((folder or Path()) / f"{path.stem}{_SUFFIXES[kind]}", kind) for path in inputs]
    paths = [target.path.absolute() for target in targets]
    for path, target in zip(paths, targets):
        if paths.count(path) > 1:
            raise InputError(f"{target.path}: two inputs would be written there; give them different names")
        if path in [it.absolute() for it in inputs]:
            raise InputError(f"{target.path}: this is an input; name another output with -o")
        _check_writable(target.path)
    return targets


def write(target: Target, result: Result, flags: Sequence[str]) -> None:
    """Write one result; the file is complete or untouched.

    Raises:
        InputError: it cannot be written.
    """
    data = _content(target.kind, result, flags)
    try:
        write_whole(target.path, data)
    except OSError as error:
        raise InputError(f"{target.path}: cannot be written: {error.strerror}") from error


def _content(kind: str, result: Result, flags: Sequence[str]) -> bytes:
    if kind == "bc":
        return result.bitcode
    if kind in {"obj", "asm"} and is_source(result.input):
        return native_code(result.bitcode, result.input, flags, assembly=kind == "asm")
    with Module.parse(result.bitcode, str(result.input)) as module:
        if kind == "ll":
            return module.to_text().encode()
        return module.emit("asm" if kind == "asm" else "obj")


def _kind_of(output: Path | None) -> str:
    suffix = output.suffix if output is not None else ""
    return next((kind for kind, it in _SUFFIXES.items() if it == suffix), "obj")


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: this is a folder; name a file with -o")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if not has_place(path) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{path}: cannot be written: permission denied")
