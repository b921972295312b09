"""Translation units: one compiler command each, run again with clang to IR that no pass has touched.

The flags that say what the source means are kept: includes, macros, language, code generation. What
optimises, instruments or describes for a debugger goes, and so does what only writes other files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondpass import suffixes
from secondpass.corpus.disk import check_said
from secondpass.corpus.processes import Processes
from secondpass.errors import CorpusError
from secondpass.files import write_json
from secondpass.llvm.library import load
from secondpass.llvm.toolchain import find_clang
from secondpass.probes import is_probe

if TYPE_CHECKING:
    from secondpass.suffixes import Language

UNOPTIMISED = ("-w", "-Oz", "-Xclang", "-disable-llvm-passes", "-emit-llvm", "-c")
"""clang's flags for IR that is marked for -Oz and on which no pass has run."""

_SECONDS = 180
_DROPPED_WITH_VALUE = set(
    "-o -MF -MT -MQ -MJ -L -l -z -T -u -e --param -mllvm -Xlinker -Xassembler -framework -dumpbase -dumpdir".split()
)
_KEPT_WITH_VALUE = set(
    "-I -D -U -F -B -x -include -imacros -isystem -iquote -idirafter -isysroot -iprefix -iwithprefix "
    "-iwithprefixbefore -iwithsysroot -iframework -imultilib -imultiarch -cxx-isystem --sysroot -target -arch -Xclang "
    "-Xpreprocessor".split()
)
_DROPPED = re.compile(
    r"-(c|S|E|o.*|O\w*|g[\w.+-]*|M.*|pipe|W(?!p,-[DU]).*|l.*|L.*|flto.*|ffat-lto-objects|fsanitize.*|fno-sanitize.*"
    r"|ffile-prefix-map.*|fdebug-prefix-map.*|fmacro-prefix-map.*|fdiagnostics.*|shared|static|rdynamic|pg"
    r"|fprofile.*|fcoverage.*|-coverage|ftest-coverage|pedantic.*|save-temps.*|fmax-errors.*|fsyntax-only"
    r"|ftime-trace.*)$"
)
_UNKNOWN = re.compile(r"(?:unknown|unsupported) (?:argument|option)(?: [^']*)?:? '([^']+)'")


@dataclass(frozen=True, slots=True)
class Command:
    """How a build compiles one source file."""

    directory: Path
    file: str
    arguments: tuple[str, ...]
    """The compiler and all its flags."""

    @property
    def path(self) -> Path:
        """The source file."""
        return self.directory / self.file

    @property
    def language(self) -> Language | None:
        """What it is written in; None for assembly, Fortran and their like."""
        named = _named_language(self.arguments)
        if named:
            return "c++" if named == "c++" else "c" if named == "c" else None
        language = suffixes.SOURCES.get(Path(self.file).suffix)
        compiler = Path(self.arguments[0]).name if self.arguments else ""
        return "c++" if language == "c" and re.search(r"\+\+(-\d+)?$", compiler) else language


def _named_language(arguments: Sequence[str]) -> str:
    """What `-x` says, as a word of its own or joined; empty where nothing does."""
    for argument, following in zip(arguments, (*arguments[1:], "")):
        if argument.startswith("-x"):
            return argument[2:] or following
    return ""


@dataclass(frozen=True, slots=True)
class Unit:
    """A translation unit on disk.

    Attributes:
        file: the source, relative to the project's root where it lies below it.
        language: `c`, `c++`, or `ir` where it was IR already.
        bitcode: file name beside `units.json`.
        error: why there is no bitcode, one line.
    """

    file: str
    language: str
    bitcode: str
    error: str | None = None


def units_path(out: Path, project: str) -> Path:
    """The file that says which units a project has; where it is, the project is done."""
    return out / "units" / project / "units.json"


@dataclass(frozen=True, slots=True)
class Project:
    """A project's translation units: what every source makes, and all that extraction reads.

    Attributes:
        name, version: of the project.
        units: in the order of the build.
        origin: what it was made from, where its name does not say it.
    """

    name: str
    version: str
    units: tuple[Unit, ...]
    origin: str = ""

    def save(self, folder: Path) -> None:
        """Write `units.json`; it comes last, so that a folder that has it is complete."""
        write_json(folder / "units.json", asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Project:
        """Read what `save` wrote.

        Raises:
            CorpusError: it is not that.
        """
        path = folder / "units.json"
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            units = tuple(Unit(**unit) for unit in data["units"])
            return cls(data["name"], data["version"], units, data.get("origin", ""))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{path}: cannot be read ({error}); start the command again with --again") from error

    @property
    def compiled(self) -> tuple[Unit, ...]:
        """The units that have bitcode."""
        return tuple(unit for unit in self.units if unit.error is None)


def compile_units(
    commands: Iterable[Command],
    root: Path,
    target: Path,
    extra: Sequence[str] = (),
    processes: Processes | None = None,
) -> tuple[Unit, ...]:
    """Compile every distinct source file to `target/<hash>.bc`, one on each core at a time.

    Args:
        commands: how the build compiles them; the first command of a file counts.
        root: the project's root: files below it are named relative to it.
        target: folder for the bitcode; made when missing.
        extra: flags for every unit, before its own.
        processes: runs the compilers.

    Returns:
        The units in the commands' order, failed ones too.

    Raises:
        Stopped: `processes` was stopped.
        InputError: the disk is full.
    """
    target.mkdir(parents=True, exist_ok=True)
    distinct: dict[str, Command] = {}
    for command in commands:
        if command.language is not None and not is_probe(str(command.path)):  # a trial's file is gone by now
            distinct.setdefault(os.path.normpath(command.path), command)
    clang = str(find_clang(major=load().major))
    processes = processes or Processes()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = [pool.submit(_compile, clang, it, root, target, extra, processes) for it in distinct.values()]
        return tuple(future.result() for future in compiled)


def _compile(
    clang: str, command: Command, root: Path, target: Path, extra: Sequence[str], processes: Processes
) -> Unit:
    name, bitcode = named_below(root, command.path)
    language = command.language or "c"
    flags = [*extra, *meaningful(command.arguments[1:], command.file)]
    if "-x" not in flags:
        flags += ["-x", language]
    error = None
    for _ in range(4):
        run = [clang, *flags, *UNOPTIMISED, str(command.path), "-o", str(target / bitcode)]
        try:
            done = processes.run(run, directory=command.directory, seconds=_SECONDS)
        except subprocess.TimeoutExpired:
            return Unit(name, language, bitcode, f"clang took more than {_SECONDS} seconds")
        except OSError as failure:
            return Unit(name, language, bitcode, f"{failure.filename}: {failure.strerror}")
        except ValueError as failure:  # a zero byte among the arguments
            return Unit(name, language, bitcode, str(failure))
        if done.code == 0:
            return Unit(name, language, bitcode)
        check_said(target, done.errors)
        error = " ".join(done.errors.split())[:400] or f"clang ended with {done.code}"
        unknown = set(_UNKNOWN.findall(done.errors))
        remaining = [flag for flag in flags if flag not in unknown]
        if len(remaining) == len(flags):
            break
        flags = remaining  # gcc knows flags that clang does not
    return Unit(name, language, bitcode, error)


def named_below(root: Path, path: Path) -> tuple[str, str]:
    """What a unit is called, relative to the root where it lies below it, and the name of its bitcode file."""
    absolute, base = os.path.normpath(path), os.path.normpath(root)
    name = os.path.relpath(absolute, base) if absolute.startswith(base + os.sep) else absolute
    bitcode = hashlib.sha256(os.fsencode(name)).hexdigest()[:16] + ".bc"
    return name.encode(errors="replace").decode(), bitcode


def meaningful(arguments: Sequence[str], source: str) -> Iterator[str]:
    """The flags of a compiler command that say what the source means."""
    iterator = iter(arguments)
    for argument in iterator:
        if argument in _KEPT_WITH_VALUE:
            yield argument
            yield next(iterator, "")
        elif argument in _DROPPED_WITH_VALUE:
            next(iterator, None)
        elif argument != source and argument.startswith("-") and not _DROPPED.match(argument):
            yield argument
