"""What `secondpass tune` does, as a function."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondpass.corpus.disk import is_full
from secondpass.corpus.store import Corpus
from secondpass.errors import InputError
from secondpass.llvm.sandbox import Sandbox
from secondpass.progress import Progress
from secondpass.prompt import Objective
from secondpass.tuner.knowledge import Knowledge
from secondpass.tuner.labels import LabelStore
from secondpass.tuner.search import Budget
from secondpass.tuner.tune import Report, Runner, tune
from secondpass.tuner.work import Settings

_FUNCTION_SECONDS, _SEARCH_SECONDS = 600.0, 60.0
"""Longest work on one function, and longest search: enough for all but a few that carry megabytes of constants, which
are printed after every pass. A single pass is stopped much earlier."""
_MEMORY = 1 << 30
"""Bytes of a worker. What takes more takes all there is: the sooner it dies, the better."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of a tuning run, as the command line has them."""

    corpus: Path
    objective: Objective = Objective.INSTRUCTIONS
    budget: int = 150
    patience: int = 0
    splits: tuple[str, ...] = ()
    largest: int | None = None
    functions: int | None = None
    seed: int = 0
    workers: int = 0
    out: Path | None = None
    resume: bool = False
    ray: str | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished run: where the labels are, and what it did."""

    out: Path
    objective: Objective
    report: Report


def tune_corpus(request: Request, progress: Progress | None = None) -> Tuned:
    """Label a corpus, or a part of it.

    Raises:
        InputError: an option makes no sense, there are labels already and `resume` is off, or the disk is full.
        CorpusError: no corpus, or labels that are in use or were made with other versions.
    """
    if request.budget < 1 or request.patience < 0 or request.workers < 0:
        raise InputError("--budget must be positive, --patience and --workers not negative")
    if request.functions is not None and request.functions < 1:
        raise InputError(f"--functions {request.functions}: give a positive number, or leave it out for all")
    if request.ray is not None and request.workers:
        raise InputError("--workers counts processes of this machine; a Ray cluster uses all the CPUs it has")
    corpus = Corpus(request.corpus)
    keys = [entry.hash for entry in corpus.select(*request.splits, largest=request.largest)][: request.functions]
    if not keys:
        splits = f" of the split {' or '.join(request.splits)}" if request.splits else ""
        largest = f" of at most {request.largest} instructions" if request.largest is not None else ""
        raise InputError(f"{request.corpus}: holds no function{splits}{largest}; ask for others")
    out = request.out or request.corpus / f"labels-{request.objective}.parquet"
    with _full_disk_is_clear(out), LabelStore(out, request.objective) as store:
        if store.labels and not request.resume:
            raise InputError(
                f"{out}: holds {len(store.labels):,} labels; --resume goes on with them, or name another --out"
            )
        budget = Budget(request.budget, request.patience, seconds=_SEARCH_SECONDS)
        settings = Settings(request.objective, Knowledge(), budget, seed=request.seed)
        with _runner(request) as runner:
            return Tuned(out, request.objective, tune(corpus, keys, store, settings, runner, progress))


@contextmanager
def _full_disk_is_clear(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise InputError(
                f"{out}: cannot be written: {error.strerror}; what was found until then stays: make room and go on "
                "with --resume"
            ) from error
        raise


@contextmanager
def _runner(request: Request) -> Generator[Runner, None, None]:
    if request.ray is not None:
        from secondpass.tuner.cluster import Cluster

        with Cluster(request.ray, _FUNCTION_SECONDS, _MEMORY) as cluster:
            yield cluster
    else:
        with Sandbox(request.workers, _FUNCTION_SECONDS, _MEMORY, reproducible=True) as sandbox:
            yield sandbox
