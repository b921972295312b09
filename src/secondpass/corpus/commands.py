"""What `secondpass corpus` does, as functions."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from secondpass.corpus import sources
from secondpass.corpus.build import ProjectReport, Source, collect
from secondpass.corpus.debian import Builder, Package, check_machine, check_names, read_recipe, same
from secondpass.corpus.disk import check_disk, full_disk_is_clear
from secondpass.corpus.processes import Processes
from secondpass.corpus.store import shard_path
from secondpass.corpus.units import Project, units_path
from secondpass.errors import InputError
from secondpass.files import lock
from secondpass.progress import Progress


@dataclass(frozen=True, slots=True)
class Named:
    """How a project of the user's is entered.

    Attributes:
        name: of the project; its folder's name when None.
        version: any text.
        split: fixed, or by a hash of the name when None.
        again: made anew even where it is done.
    """

    name: str | None = None
    version: str = "-"
    split: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Collection:
    """What a corpus command did: a report a project, and the size of the whole corpus."""

    out: Path
    reports: tuple[ProjectReport, ...]
    functions: int


def debian(
    out: Path,
    names: Sequence[str],
    recipe: Path | None,
    *,
    minutes: float = 12,
    again: bool = False,
    progress: Progress | None = None,
) -> Collection:
    """Build Debian source packages, one more at a time than there are cores: much of a build is waiting.

    Raises:
        InputError: no package is named, the recipe is malformed, or the machine cannot build packages.
    """
    check_names(names)
    packages = {it.name: it for it in (read_recipe(recipe) if recipe else [])}
    packages = {name: Package(name) for name in names} | packages
    if not packages:
        raise InputError("name packages, or a recipe with --list")
    if minutes <= 0:
        raise InputError("--minutes must be positive")
    check_machine()
    with _locked(out) as out:
        check_disk(out)
        processes = Processes()
        builder = Builder(out, processes, minutes=minutes)
        waiting = [it for it in packages.values() if again or not units_path(out, it.name).exists()]
        threading.Thread(target=builder.install_dependencies, args=[waiting], daemon=True).start()

        def made(package: Package) -> Project:
            if again or not units_path(out, package.name).exists():
                return _anew(out, package.name, partial(builder.build, package))
            return same(Project.load(units_path(out, package.name).parent), package)

        found = [Source(it.name, partial(made, it), again, it.split) for it in packages.values()]
        try:
            reports, functions = collect(out, found, (os.cpu_count() or 1) + 1, processes, progress)
        finally:
            processes.stop()  # what is still being installed is for packages that have failed
    return Collection(out, tuple(reports), functions)


def compdb(out: Path, database: Path, named: Named, progress: Progress | None = None) -> Collection:
    """Enter the project of a compile database."""
    name = database.absolute().parent.name if named.name is None else named.name
    make = partial(sources.from_database, database, name, named.version)
    return _enter(out, name, named, str(database.absolute()), make, progress)


def files(
    out: Path, paths: Sequence[Path], flags: Sequence[str], named: Named, progress: Progress | None = None
) -> Collection:
    """Enter source and IR files as one project."""
    first = paths[0].absolute()
    name = (first if first.is_dir() else first.parent).name if named.name is None else named.name
    origin = " ".join([*(str(path.absolute()) for path in paths), *(["--", *flags] if flags else [])])
    return _enter(out, name, named, origin, partial(sources.from_files, paths, name, named.version, flags), progress)


def csmith(out: Path, count: int, seed: int, *, again: bool = False, progress: Progress | None = None) -> Collection:
    """Enter Csmith's programs; they are for training alone."""
    if count < 1 or seed < 0:
        raise InputError("--count must be positive and --seed not negative")
    named = Named(sources.CSMITH, split="train", again=again)
    origin = f"seeds {seed} to {seed + count - 1}"
    return _enter(out, sources.CSMITH, named, origin, partial(sources.from_csmith, count, seed), progress)


def _enter(
    out: Path,
    name: str,
    named: Named,
    origin: str,
    make: Callable[[Path, Processes], Project],
    progress: Progress | None,
) -> Collection:
    if not re.fullmatch(r"[^/\0.\ud800-\udfff][^/\0\ud800-\udfff]*", name):  # surrogates: it is no UTF-8
        raise InputError(f"'{name}' cannot be the name of a project; name it with --project")
    with _locked(out) as out:
        processes = Processes()

        def made() -> Project:
            if named.again or not units_path(out, name).exists():
                return _anew(out, name, lambda aside: replace(make(aside, processes), origin=origin))
            return _same(Project.load(units_path(out, name).parent), origin)

        source = Source(name, made, named.again, named.split)
        reports, functions = collect(out, [source], 1, processes, progress)
    return Collection(out, tuple(reports), functions)


def _same(project: Project, origin: str) -> Project:
    if project.origin != origin:
        raise InputError(
            f"the corpus has a project {project.name} already, made from {project.origin or 'a Debian package'}: "
            "--again puts this in its place, another --project or --out keeps both"
        )
    return project


@contextmanager
def _locked(out: Path) -> Generator[Path, None, None]:
    """Make the folder where it is missing, and keep other corpus commands out of it; its absolute path."""
    out = out.absolute()
    busy = f"{out}: another corpus command is adding to it; wait for it or name another --out"
    with lock(out / "lock", busy), full_disk_is_clear(out):
        yield out


def _anew(out: Path, name: str, make: Callable[[Path], Project]) -> Project:
    """Make a project aside; what has its place is kept until this one is complete."""
    place, aside = units_path(out, name).parent, out / "units" / f".{name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        project = make(aside)
        project.save(aside)
        units_path(out, name).unlink(missing_ok=True)  # first: without it nothing else counts
        shard_path(out, name).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return project
