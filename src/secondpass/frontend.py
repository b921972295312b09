"""An input file as unoptimised IR: C and C++ through clang, IR as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from secondpass import suffixes
from secondpass.driver.command import read_command
from secondpass.errors import InputError
from secondpass.llvm.library import load
from secondpass.llvm.toolchain import find_clang

# -Oz decides the attributes of every function; the passes themselves are ours to run.
_UNOPTIMISED = ("-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c", "-o", "-")


def is_source(path: Path) -> bool:
    """Whether clang has to compile it first."""
    return path.suffix in suffixes.LANGUAGES


def read_ir(path: Path, flags: Sequence[str] = ()) -> tuple[bytes, str]:
    """A file's IR (text or bitcode) before any optimisation, and the warnings clang gave.

    Args:
        path: C or C++ source, or IR as text or bitcode, by suffix.
        flags: for clang; its optimisation level is overridden.

    Raises:
        InputError: the file cannot be read, is of no known kind, or does not compile (clang's message).
        ToolchainError: there is no clang.
    """
    if not is_source(path) and path.suffix not in suffixes.IR:
        kinds = ", ".join((*suffixes.LANGUAGES, *suffixes.IR))
        raise InputError(f"{path}: not a kind of file that can be optimised; give one of {kinds}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not is_source(path):
        if flags:
            raise InputError(f"{path}: flags for clang ({' '.join(flags)}) have no use for IR; leave them out")
        return data, ""
    _check_flags(path, flags)
    return _run_clang([*flags, *_UNOPTIMISED, str(path)], path)


def _check_flags(path: Path, flags: Sequence[str]) -> None:
    """Refuse flags that ask for more than code, or for code that our passes do not make, as builds have them.

    Raises:
        InputError: there is one.
    """
    command = read_command(["-c", *flags, str(path)], force=True)
    reason = command.untouched
    if command.writes_dependencies or command.value_of("-MF"):
        reason = "dependencies are asked for"
    elif command.output:
        reason = f"the output {command.output} is named"
    if reason:
        raise InputError(f"{path}: of the flags for clang, {reason}; leave that out, or compile with `secondpass cc`")


def native_code(bitcode: bytes, path: Path, flags: Sequence[str], *, assembly: bool) -> bytes:
    """Native code of optimised bitcode by clang itself, so that every flag for code generation counts.

    Raises:
        InputError: clang refuses.
    """
    kind = "-S" if assembly else "-c"
    command = [*flags, "-Oz", "-w", "-Xclang", "-disable-llvm-passes", kind, "-o", "-", "-x", "ir", "-"]
    return _run_clang(command, path, bitcode)[0]


def _run_clang(arguments: Sequence[str], path: Path, data: bytes | None = None) -> tuple[bytes, str]:
    clang = find_clang(major=load().major)
    try:
        run = subprocess.run([clang, *arguments], input=data, capture_output=True, check=False)
    except OSError as error:
        raise InputError(f"{clang}: cannot be run: {error.strerror}") from error
    said = run.stderr.decode("utf-8", "replace").strip()
    if run.returncode:
        raise InputError(f"{path}: clang does not compile it:\n{said}")
    return run.stdout, said
