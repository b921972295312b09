"""Debian source packages as projects: fetched, built the way Debian builds them, their commands noted.

Each package's build dependencies are installed and `dpkg-buildpackage` runs under Bear, which notes
every compiler command; then clang compiles the same files again (`units.compile_units`). Debian's
`noopt` build option keeps the compilers that only the build needs from optimising; the macro that it
takes away with it, `_FORTIFY_SOURCE`, is put back.

Needs root and the packages `bear`, `dpkg-dev` and `build-essential`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secondpass.corpus import SPLITS
from secondpass.corpus.disk import check_disk, check_said
from secondpass.corpus.processes import Processes, Stopped, end_marked
from secondpass.corpus.sources import read_database
from secondpass.corpus.units import Command, Project, compile_units
from secondpass.errors import InputError, SecondpassError

_PROGRAMS = {"bear": "bear", "dpkg-buildpackage": "dpkg-dev", "g++": "build-essential", "apt-get": "apt"}
"""What is needed, with the package that has it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PACKAGES_AT_ONCE = 12
"""Packages whose build dependencies are installed by one call."""
_MINUTES_FETCH, _MINUTES_BUILD = 10, 12
_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Options::=--force-unsafe-io")
_DEPENDENCIES = (*_APT, "build-dep", "-y", "--arch-only", "--no-install-recommends", "-P", "nocheck,nodoc")
_UNFINISHED = ("dpkg", "--configure", "-a")
"""What an apt that was killed leaves behind has to be finished before apt does anything else."""
_TELLING_LINES = 60
"""Of the end of a program's output, that may say why it failed."""
_BUILD = ("dpkg-buildpackage", "-T", "build-arch", "-uc", "-us", "-d")
"""Only the architecture's own part: packaging compiles nothing."""


class PackageError(SecondpassError):
    """A package that cannot be fetched or built: a line in the report, not the end."""


class UnknownPackage(PackageError):
    """apt knows no source package of that name, or not in that version."""


@dataclass(frozen=True, slots=True)
class Package:
    """A line of a recipe: a source package, and where given its version and split."""

    name: str
    version: str | None = None
    split: str | None = None

    @property
    def specification(self) -> str:
        """What `apt-get` is asked for."""
        return f"{self.name}={self.version}" if self.version else self.name


def read_recipe(path: Path) -> list[Package]:
    """Read a recipe: `package [version|-] [train|validation|test]` a line, `#` starts a comment.

    Raises:
        InputError: the file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    packages: dict[str, Package] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, version, split = (*words, "-", "-", "-")[:3]
        if len(words) > 3 or not re.match(r"\d|-$", version) or (len(words) == 3 and split not in SPLITS):
            raise InputError(f"{path}:{number}: '{line}' is not 'package [version|-] [train|validation|test]'")
        if not _NAME.fullmatch(name) or name in packages:
            fault = "stands there twice" if name in packages else "cannot be the name of a source package"
            raise InputError(f"{path}:{number}: '{name}' {fault}")
        packages[name] = Package(name, version if version != "-" else None, split if split != "-" else None)
    return list(packages.values())


def check_names(names: Sequence[str]) -> None:
    """Refuse what no source package is called.

    Raises:
        InputError: with the first such name.
    """
    for name in names:
        if not _NAME.fullmatch(name):
            raise InputError(f"'{name}' cannot be the name of a Debian source package")


def check_machine() -> None:
    """Refuse early what would fail for every package.

    Raises:
        InputError: not root, a program is missing, or apt has no sources.
    """
    if os.geteuid() != 0:
        raise InputError("corpus debian installs build dependencies and needs root: run it with sudo or in a container")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise InputError(f"corpus debian needs {program}: apt-get install {package}, on Debian or in a container")
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(CREATED_BY)"], capture_output=True, text=True)
    if "Sources" not in targets.stdout:
        raise InputError(
            "apt knows no source packages: add 'deb-src' to the Types in /etc/apt/sources.list.d/*.sources "
            "(or a deb-src line to sources.list), then apt-get update"
        )


class Builder:
    """Builds packages, with logs in `out/logs`. Threads share it.

    Args:
        out: the corpus's folder.
        processes: runs the builds.
        jobs: `make -j` of each build.
        minutes: longest time a build may take.

    Raises:
        InputError: Bear is too old.
    """

    def __init__(self, out: Path, processes: Processes, jobs: int = 2, minutes: float = _MINUTES_BUILD) -> None:
        self._out = out
        self._processes = processes
        self._jobs = jobs
        self._minutes = minutes
        self._apt = threading.Lock()  # apt and dpkg allow one of themselves at a time
        self._wrappers = out / "wrappers"
        (out / "logs").mkdir(parents=True, exist_ok=True)
        _make_wrappers(self._wrappers)
        # What `noopt` takes away, and headers that gcc brings and clang's wheel does not: omp.h.
        self._flags = ("-D_FORTIFY_SOURCE=2", "-idirafter", _said_by("gcc", "-print-file-name=include"))

    def install_dependencies(self, packages: Sequence[Package]) -> None:
        """Install what packages need, several at once: many times faster than one by one, and free to fail."""
        log = self._out / "logs" / "dependencies.log"
        for start in range(0, len(packages), _PACKAGES_AT_ONCE):
            wanted = [package.specification for package in packages[start : start + _PACKAGES_AT_ONCE]]
            with self._apt, contextlib.suppress(PackageError, InputError, OSError, Stopped):
                self._install("dependencies", wanted, self._out, log)

    def build(self, package: Package, target: Path) -> Project:
        """Fetch, build and compile to bitcode, into the folder `target`.

        Raises:
            PackageError: it cannot be fetched or built; the message names the log.
            InputError: the disk is full.
            Stopped: the run was given up.
        """
        check_disk(self._out)
        work = self._out / "sources" / package.name
        log = self._out / "logs" / f"{package.name}.log"
        end_marked(str(work))  # a build of this package that outlived an interrupted run
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        log.unlink(missing_ok=True)
        try:
            source, version = self._fetch(package, work, log)
            commands = self._commands(package.name, source, work, log)
            units = compile_units(commands, source, target, self._flags, self._processes)
        finally:
            end_marked(str(work))  # what the build left running
            shutil.rmtree(work, ignore_errors=True)
        project = Project(package.name, version, units)
        with log.open("a") as sink:
            sink.writelines(f"{unit.file}: {unit.error}\n" for unit in units if unit.error)
        if not project.compiled:
            reason = next((f" ({unit.file}: {unit.error})" for unit in units if unit.error), "")
            raise PackageError(f"{package.name}: none of {len(units)} translation units compiles{reason}; see {log}")
        return project

    def _fetch(self, package: Package, work: Path, log: Path) -> tuple[Path, str]:
        name = package.name
        with self._apt:
            with contextlib.suppress(PackageError):  # often what is missing is not needed; the log says what it was
                self._install(name, [package.specification], work, log)
            source = [*_APT, "source", "--only-source"]
            try:
                self._step(name, [*source, package.specification], work, log, _MINUTES_FETCH)
            except PackageError as error:
                if package.version or isinstance(error, UnknownPackage):
                    raise
                self._step(name, [*source, _stable(name)], work, log, _MINUTES_FETCH)
        description = next(work.glob("*.dsc"), None)
        folder = next((path for path in work.iterdir() if (path / "debian").is_dir()), None)
        if description is None or folder is None:
            raise PackageError(f"{name}: apt-get source unpacked nothing; see {log}")
        version = re.search(r"^Version: (\S+)", description.read_text(errors="replace"), re.MULTILINE)
        return folder, version[1] if version else "unknown"

    def _commands(self, name: str, source: Path, work: Path, log: Path) -> list[Command]:
        database = work / "compile_commands.json"
        bear = ["bear", "--force-wrapper", "--wrapper-dir", str(self._wrappers), "--output", str(database), "--"]
        failure: PackageError | None = None
        try:
            self._step(name, [*bear, *_BUILD], source, log, self._minutes)
        except PackageError as error:  # documentation that fails to build is no loss, a library that does is
            failure = error
        try:
            commands = read_database(database) if database.exists() else []
        except InputError as error:
            raise failure or PackageError(f"{error}; see {log}") from error
        if not commands:
            raise failure or PackageError(f"{name}: its build ran no compiler that Bear saw; see {log}")
        return commands

    def _install(self, name: str, specifications: Sequence[str], directory: Path, log: Path) -> None:
        with contextlib.suppress(PackageError):
            self._step(name, _UNFINISHED, directory, log, _MINUTES_FETCH)
        self._step(name, [*_DEPENDENCIES, *specifications], directory, log, _MINUTES_FETCH)

    def _step(self, name: str, command: Sequence[str], directory: Path, log: Path, minutes: float) -> None:
        """Run a program of a package's; its output goes to the end of the log."""
        variables = {
            "DEBIAN_FRONTEND": "noninteractive",
            "DEB_BUILD_OPTIONS": f"nocheck nodoc noautodbgsym noopt parallel={self._jobs}",
            "DEB_BUILD_PROFILES": "nocheck nodoc",
            "DEB_CFLAGS_STRIP": "-g",
            "DEB_CXXFLAGS_STRIP": "-g",
            "FORCE_UNSAFE_CONFIGURE": "1",  # GNU programs refuse to be configured by root
            "LC_ALL": "C.UTF-8",
            "PATH": _system_path(),
        }
        mark = str(self._out / "sources" / name)
        with log.open("ab") as sink:
            start = sink.tell()
            try:
                finished = self._processes.run(
                    command, directory=directory, variables=variables, seconds=60 * minutes, mark=mark, log=sink
                )
            except subprocess.TimeoutExpired:
                more = ", --minutes allows more" if command[0] == "bear" else ""
                raise PackageError(
                    f"{name}: {command[0]} took more than {minutes:g} minutes{more}; see {log}"
                ) from None
        if finished.code:
            said = log.read_bytes()[start:].decode(errors="replace")
            check_said(self._out, "\n".join(said.splitlines()[-_TELLING_LINES:]))
            if "E: Unable to find a source package" in said:
                what = "that version" if "E: Can not find version" in said else "that name"
                mend = "apt-cache showsrc lists those there are, apt-get update fetches the list"
                raise UnknownPackage(f"{name}: no source package of {what}: {_complaint(said)}; {mend}")
            raise PackageError(f"{name}: {command[0]} ended with {finished.code}: {_complaint(said)}; see {log}")


def same(project: Project, package: Package) -> Project:
    """The project that is there already.

    Raises:
        PackageError: it is another version, or no Debian package.
    """
    if project.origin or package.version not in (None, project.version):
        there = f"made from {project.origin}" if project.origin else f"of version {project.version}"
        raise PackageError(
            f"{package.specification}: the corpus has a project {project.name} already, {there}: "
            "--again puts this in its place, another --out keeps both"
        )
    return project


def _make_wrappers(folder: Path) -> None:
    """Give Bear a folder of compilers that tell it when they run.

    Its other way, a preloaded library, reports every process and makes `configure` four times slower.
    """
    folder.mkdir(exist_ok=True)
    prefix = Path(shutil.which("bear") or "bear").resolve().parent.parent
    wrapper = next(prefix.glob("lib/*/bear/wrapper"), None) or next(prefix.glob("lib/bear/wrapper"), None)
    if wrapper is None:
        raise InputError(f"Bear has no compiler wrapper under {prefix}/lib; version 3 is needed")
    version = _said_by("gcc", "-dumpversion")
    plain = ["gcc", "g++", f"gcc-{version}", f"g++-{version}"]
    for compiler in ("cc", "c++", *plain, *(f"x86_64-linux-gnu-{it}" for it in plain)):
        (folder / compiler).unlink(missing_ok=True)
        (folder / compiler).symlink_to(wrapper)


def _system_path() -> str:
    """The search path without the virtual environment of secondpass: its CMake is too new for many packages."""
    path = os.environ["PATH"]
    if sys.prefix == sys.base_prefix:
        return path
    return os.pathsep.join(it for it in path.split(os.pathsep) if Path(it) != Path(sys.prefix, "bin"))


def _said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _complaint(said: str) -> str:
    """The line of a program's output that looks like the reason: apt's first, else the last of a build."""
    lines = said.splitlines()[-_TELLING_LINES:]
    apt = [line for line in lines if line.startswith("E: ")]
    telling = [line for line in lines if re.search(r"\b[Ee]rror\b", line)]
    return (apt[:1] or telling[-1:] or lines[-1:] or ["it said nothing"])[0].strip()[:200]


def fetch_source(name: str, folder: Path) -> Path:
    """Unpack a package's source in a folder made anew: the newest version, or where that is gone the stable release's.

    Returns:
        The source's own folder in it.

    Raises:
        PackageError: apt fetches none; what it says has gone to standard error.
    """
    command = ["apt-get", "source", "-o", "APT::Sandbox::User=root"]
    for wanted in (name, _stable(name)):
        shutil.rmtree(folder, ignore_errors=True)  # of a first try that came half way
        folder.mkdir(parents=True)
        if not subprocess.run([*command, wanted], cwd=folder, stdout=subprocess.DEVNULL).returncode:
            return next(it for it in folder.iterdir() if it.is_dir())
    raise PackageError(f"{name}: its source cannot be fetched; what apt-get says stands above")


def _stable(name: str) -> str:
    """A package of the stable release, for where a security update's source is gone from the mirror."""
    return f"{name}/{_release()}"


def _release() -> str:
    """The code name of this Debian, such as `bookworm`."""
    try:
        found = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())
    except OSError:
        found = None
    return found[1] if found else "stable"
