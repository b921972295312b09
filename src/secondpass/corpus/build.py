"""From sources to a corpus: build what is missing, extract what is missing, index everything.

A project is a step that either is on disk whole or is done again; so a run that was killed goes on where it
was, and a project that fails is a line in the report.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from secondpass import parquet
from secondpass.corpus.disk import check_said, full_disk_is_clear
from secondpass.corpus.extraction import extract
from secondpass.corpus.processes import Processes, Stopped, end_marked
from secondpass.corpus.store import build_index, count_functions, fix_splits, outdated, shard_path, write_shard
from secondpass.corpus.units import Project, units_path
from secondpass.errors import CorpusError, InputError, SecondpassError
from secondpass.files import write_json
from secondpass.llvm.library import load
from secondpass.llvm.sandbox import Sandbox
from secondpass.llvm.toolchain import find_clang
from secondpass.progress import Progress

_EXTRACTION_MINUTES = 30
_FUNCTION_SECONDS = 60.0
"""For -Oz of one function, far more than it takes, so that a busy machine makes the same corpus as an idle one."""


@dataclass(frozen=True, slots=True)
class Source:
    """A project still to be made.

    Attributes:
        name: of the project.
        make: builds it into `OUT/units/NAME`, or only reads it where that is done.
        again: it is built even where it is done.
        split: fixed for it, once it is sure that it is the project of this name.
    """

    name: str
    make: Callable[[], Project]
    again: bool = False
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectReport:
    """How a project went.

    Attributes:
        name, version: of the project; the version is empty where it was never found out.
        units, compiled: translation units, and those with bitcode.
        functions: distinct ones, before other projects are looked at.
        seconds: wall time, of what had to be done.
        failure: why it is not in the corpus.
        problems: units, modules and functions that were left out, and why.
    """

    name: str
    version: str = ""
    units: int = 0
    compiled: int = 0
    functions: int = 0
    seconds: float = 0.0
    failure: str = ""
    problems: tuple[str, ...] = ()


def collect(
    out: Path, sources: Sequence[Source], jobs: int, processes: Processes, progress: Progress | None = None
) -> tuple[list[ProjectReport], int]:
    """Make a corpus, or add to one.

    Shards of other projects that are corrupt, or of another normal form, are made again from their units.

    Args:
        out: its folder.
        sources: the projects, each name once.
        jobs: projects at a time.
        processes: runs what the sources start; nobody else stops it, and an error or Ctrl-C does.
        progress: called with what was done last, projects done and in all.

    Returns:
        A report for each source, in their order, then of other projects that could not be mended; and the number of
        functions in the whole corpus.

    Raises:
        InputError: something that concerns all projects, such as a full disk.
        CorpusError: pyarrow is missing, or a shard that is not to be made anew is of another LLVM, whose units this one
            need not read as clang of its own version writes them, or is corrupt and has no units.
        ToolchainError: there is no clang.
    """
    parquet.arrow()
    find_clang(major=load().major)
    old = outdated(out)
    names, anew = {source.name for source in sources}, {source.name for source in sources if source.again}
    for name, fault in old.items():
        if (fault.of_another_llvm and name not in anew) or (name not in names and not units_path(out, name).exists()):
            raise fault.error
    mended = [Source(name, partial(Project.load, out / "units" / name)) for name in sorted(old.keys() - names)]
    reports: dict[str, ProjectReport] = {}
    earlier = _reports(out)
    waiting = (*sources, *mended)
    splits = {source.name: source.split for source in sources if source.split}
    ended: SimpleQueue[ProjectReport | BaseException] = SimpleQueue()

    def make(source: Source) -> None:
        try:
            ended.put(_one(out, source, source.name in old, processes, earlier))
        except BaseException as error:
            ended.put(error)

    with full_disk_is_clear(out), ThreadPoolExecutor(jobs) as pool, _interrupt_enters(ended):
        try:
            for source in waiting:
                pool.submit(make, source)
            while len(reports) < len(waiting):
                report = _next(ended)
                reports[report.name] = report
                if not report.failure and report.name in splits:
                    fix_splits(out, {report.name: splits[report.name]})
                if not report.failure or not shard_path(out, report.name).exists():
                    _keep(out, report)  # a command that was refused says nothing of what is there
                if progress is not None:
                    progress(report.name, len(reports), len(waiting))
        except BaseException:
            processes.stop()
            pool.shutdown(cancel_futures=True)
            raise
    with full_disk_is_clear(out):
        told = [*sources, *(source for source in mended if reports[source.name].failure)]
        return [reports[source.name] for source in told], build_index(out)


@contextlib.contextmanager
def _interrupt_enters(ended: SimpleQueue[ProjectReport | BaseException]) -> Generator[None]:
    """Ctrl-C becomes an entry of the queue: raised amid a thread's start it may leave a lock held for ever. So does
    SIGTERM, or what was started would go on without a limit to its time.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or a caller's own
        yield
        return
    ended_before = signal.getsignal(signal.SIGTERM)

    def enter(_signal: int, _frame: FrameType | None) -> None:
        ended.put(KeyboardInterrupt())

    try:
        signal.signal(signal.SIGINT, enter)
        signal.signal(signal.SIGTERM, enter)
    except ValueError:  # not the main thread: Ctrl-C is not for this one
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, ended_before)


def _next(ended: SimpleQueue[ProjectReport | BaseException]) -> ProjectReport:
    """Wait for a project, or raise what ended the run."""
    while True:
        try:
            outcome = ended.get(timeout=0.2)  # a signal that another thread receives does not wake this one
        except Empty:
            continue
        if isinstance(outcome, ProjectReport):
            return outcome
        if not isinstance(outcome, Stopped):  # another one says why
            raise outcome


def _one(out: Path, source: Source, again: bool, processes: Processes, earlier: Mapping[str, Any]) -> ProjectReport:
    started = time.monotonic()
    try:
        shard = shard_path(out, source.name)
        with full_disk_is_clear(out):
            project = source.make()
            if again or not shard.exists():
                count, problems = _extract_apart(out, source.name, processes)
                problems = [f"{unit.file}: {unit.error}" for unit in project.units if unit.error] + problems
            else:
                count, problems = count_functions(shard), earlier.get(source.name, {}).get("problems", [])
    except InputError:
        processes.stop()  # before this thread takes the next project
        raise
    except (SecondpassError, OSError) as error:
        return ProjectReport(source.name, failure=str(error), seconds=time.monotonic() - started)
    return ProjectReport(
        project.name,
        project.version,
        len(project.units),
        len(project.compiled),
        count,
        time.monotonic() - started,
        problems=tuple(problems),
    )


def _extract_apart(out: Path, name: str, processes: Processes) -> tuple[int, list[str]]:
    """Extract in a process of its own: what kills LLVM there costs one project."""
    mark = str(shard_path(out, name))
    end_marked(mark)  # one that outlived a run which was killed
    command = [sys.executable, "-P", "-m", "secondpass.corpus.build", str(out), name]
    try:
        done = processes.run(command, seconds=60 * _EXTRACTION_MINUTES, mark=mark)
    except subprocess.TimeoutExpired:
        raise CorpusError(
            f"{name}: extraction took more than {_EXTRACTION_MINUTES} minutes; enter its files in several projects"
        ) from None
    if done.code:
        check_said(out, done.errors)
        last = (done.errors.strip().splitlines() or ["nothing was said"])[-1]
        raise CorpusError(f"{name}: extraction ended with {done.code}: {last[:300]}")
    result: dict[str, Any] = json.loads(done.output)
    return result["functions"], result["problems"]


def _main(out: Path, name: str) -> None:
    folder = out / "units" / name
    with Sandbox(1, _FUNCTION_SECONDS) as sandbox:
        records, problems = extract(Project.load(folder), folder, sandbox)
    if problems and not records:
        raise CorpusError(f"{name}: no function can be had from its units: {problems[0]}")
    write_shard(shard_path(out, name), records)
    json.dump({"functions": len(records), "problems": problems}, sys.stdout)


def _reports(out: Path) -> dict[str, Any]:
    """The reports of earlier runs, by project; none where the file is missing or half written."""
    try:
        return json.loads((out / "report.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _keep(out: Path, report: ProjectReport) -> None:
    """Add a project's report to those of earlier runs."""
    write_json(out / "report.json", _reports(out) | {report.name: asdict(report)})


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
