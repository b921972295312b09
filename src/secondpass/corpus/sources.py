"""Projects from what lies on this machine: compile databases, single files, and Csmith's programs."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

from secondpass import suffixes
from secondpass.corpus.processes import Processes
from secondpass.corpus.units import Command, Project, Unit, compile_units, named_below
from secondpass.errors import InputError
from secondpass.llvm.jobs import Job
from secondpass.llvm.sandbox import Sandbox
from secondpass.response_files import expanded

_CSMITH_SECONDS = 30
_PARSING_SECONDS = 60
CSMITH = "csmith"
"""The project of Csmith's programs."""


def read_database(path: Path) -> list[Command]:
    """The commands of a `compile_commands.json`, in its order.

    Relative directories count from the database's own folder, as CMake and Bear mean them.

    Raises:
        InputError: it cannot be read or is no compile database, or a response file of a command's cannot be read.
    """
    try:
        entries: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable compile database: {error}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: a compile database is a list of commands, this is not")
    return [_command(path, number, entry) for number, entry in enumerate(cast("list[Any]", entries))]


def _command(path: Path, number: int, entry: Any) -> Command:
    try:
        words = entry["arguments"] if "arguments" in entry else shlex.split(entry["command"])
        if not isinstance(words, list) or not words:
            raise ValueError("its arguments are not a list of words")
        directory = (path.parent / entry.get("directory", ".")).absolute()
        arguments = tuple(expanded([str(it) for it in cast("list[Any]", words)], directory))
        command = Command(directory, str(entry["file"]), arguments)
        for text in (str(command.path), *arguments):
            os.fsencode(text)  # what JSON can say and no file can be called
        return command
    except InputError as error:
        raise InputError(f"{path}: entry {number}: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path}: entry {number} is not a compiler command with 'directory', 'file' and 'arguments' or "
            f"'command': {why}"
        ) from error


def from_database(path: Path, name: str, version: str, target: Path, processes: Processes) -> Project:
    """The units of a compile database; their root is the folder that all of its files lie in.

    Raises:
        InputError: it is no compile database, or none of its files compiles.
    """
    commands = read_database(path)
    folders = [os.path.normpath(it.path.parent) for it in commands if it.path.exists()]
    root = Path(os.path.commonpath(folders)) if folders else path.parent.absolute()
    units = compile_units(commands, root, target, processes=processes)
    return _checked(Project(name, version, units), str(path))


def from_files(
    paths: Sequence[Path], name: str, version: str, flags: Sequence[str], target: Path, processes: Processes
) -> Project:
    """C and C++ files, compiled with the given flags, and IR as it is; folders are searched for both.

    Raises:
        InputError: a path is missing or of no known kind, or nothing compiles.
    """
    files = list(dict.fromkeys(file for path in paths for file in _files_of(path, target)))
    root = Path(os.path.commonpath([file.parent for file in files])) if files else Path.cwd()
    commands = [Command(it.parent, str(it), ("clang", *flags)) for it in files if it.suffix in suffixes.SOURCES]
    units = compile_units(commands, root, target, processes=processes)
    units += _ir_units([it for it in files if it.suffix in suffixes.IR], root, target)
    return _checked(Project(name, version, units), ", ".join(map(str, paths)))


def _files_of(path: Path, target: Path) -> list[Path]:
    """A file itself, a folder's files; not the corpus's own."""
    known = (*suffixes.SOURCES, *suffixes.IR)
    if path.is_dir():
        corpus = target.parents[1].resolve()
        found = sorted(it.absolute() for it in path.rglob("*") if it.suffix in known and it.is_file())
        return [it for it in found if corpus not in it.resolve().parents]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix not in known:
        raise InputError(
            f"{path}: not a kind of file that functions come from; give folders or one of {', '.join(known)}"
        )
    return [path.absolute()]


def _ir_units(paths: Sequence[Path], root: Path, target: Path) -> tuple[Unit, ...]:
    """Modules as they are, read in a process that may die of them."""
    if not paths:
        return ()
    units = {str(path): Unit(named_below(root, path)[0], "ir", "", "cannot be read") for path in paths}
    jobs = (Job(path.read_bytes(), ("",), str(path), keep=True) for path in paths if os.access(path, os.R_OK))
    with Sandbox(timeout=_PARSING_SECONDS) as sandbox:
        for job, (outcome,) in sandbox.run(jobs):
            name, bitcode = named_below(root, Path(job.name))
            error = None if outcome.ok else f"{outcome.status}: {' '.join(outcome.message.split())[:400]}"
            if outcome.bitcode:
                (target / bitcode).write_bytes(outcome.bitcode)
            units[job.name] = Unit(name, "ir", bitcode, error)
    return tuple(units.values())


def from_csmith(count: int, seed: int, target: Path, processes: Processes) -> Project:
    """Random programs of Csmith, one for each seed from `seed` on; a seed always gives the same program.

    Raises:
        InputError: Csmith is not installed, or fails.
    """
    if shutil.which("csmith") is None:
        raise InputError("corpus csmith needs Csmith: apt-get install csmith libcsmith-dev")
    include = next(
        (path for path in (Path("/usr/include/csmith"), Path("/usr/local/include/csmith")) if path.exists()), None
    )
    if include is None:
        raise InputError("Csmith's headers are missing: apt-get install libcsmith-dev")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        asked = subprocess.run(["csmith", "--version"], cwd=root, capture_output=True, text=True)  # it leaves a file
        version = asked.stdout.split()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = list(pool.map(partial(_csmith, root, processes), range(seed, seed + count)))
        commands = [Command(root, path.name, ("clang", f"-I{include}")) for path in made if path is not None]
        units = compile_units(commands, root, target, processes=processes)
    return _checked(Project(CSMITH, version[1] if len(version) > 1 else "unknown", units), "Csmith")


def _csmith(root: Path, processes: Processes, seed: int) -> Path | None:
    """One program; None where Csmith does not end in time, which it does not for some seeds."""
    folder = root / str(seed)  # it writes a file of a fixed name into the folder it runs in
    folder.mkdir()
    program = root / f"{seed}.c"
    command = ["csmith", "--seed", str(seed), "--no-packed-struct", "--output", str(program)]
    try:
        done = processes.run(command, directory=folder, seconds=_CSMITH_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return None if done.code else program


def _checked(project: Project, what: str) -> Project:
    if not project.compiled:
        reason = next((f": {unit.file}: {unit.error}" for unit in project.units if unit.error), "")
        raise InputError(f"{what}: no translation unit that compiles among {len(project.units)}{reason}")
    return project
