"""What a corpus holds, in numbers and as a picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError, InputError
from secondpass.model.manifest import SHIPPED
from secondpass.model.tokenizer import Tokenizer
from secondpass.progress import Progress

_SAMPLE = 20_000
"""Functions whose tokens are counted: the first by hash, which is a fair draw."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Quantiles of one quantity."""

    median: float
    ninety: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution:
        """Of any number of values; zeros for none."""
        ranked = sorted(values)
        if not ranked:
            return cls(0, 0, 0)
        return cls(median(ranked), ranked[int(0.9 * (len(ranked) - 1))], ranked[-1])


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a corpus: a split, a language or a project.

    Attributes:
        name: what it is.
        functions, projects: how many.
        source, oz, oz_bytes: distributions over its functions.
    """

    name: str
    functions: int
    projects: int
    source: Distribution
    oz: Distribution
    oz_bytes: Distribution


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a corpus holds.

    Attributes:
        parts: the whole, the splits, the languages.
        projects: each project with the functions that count for it, largest first.
        sources: every function's instructions, unoptimised.
        tokens: of the shipped tokenizer, for a sample of the functions.
    """

    parts: tuple[Part, ...]
    projects: tuple[Part, ...]
    sources: dict[str, tuple[int, ...]]
    tokens: tuple[int, ...]

    @property
    def lengths(self) -> Distribution:
        """Of the sample's tokens a function."""
        return Distribution.of(self.tokens)


def statistics(corpus: Corpus, progress: Progress | None = None) -> Statistics:
    """Count and measure. Tokens are counted on a sample."""
    entries = corpus.select()
    by_project: defaultdict[str, list[str]] = defaultdict(list)
    by_language: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        by_project[entry.project].append(entry.hash)
        by_language[entry.language].append(entry.hash)
    parts = [_part(corpus, "all", [entry.hash for entry in entries])]
    parts += [_part(corpus, split, [entry.hash for entry in entries if entry.split == split]) for split in SPLITS]
    parts += [_part(corpus, language, keys) for language, keys in sorted(by_language.items())]
    projects = [_part(corpus, project, keys) for project, keys in by_project.items()]
    tokenizer = Tokenizer.load(SHIPPED / "tokenizer.json")
    sample = corpus.in_order_of_shards(entry.hash for entry in entries[:_SAMPLE])
    tokens: list[int] = []
    for number, key in enumerate(sample):
        tokens.append(len(tokenizer.encode_ir(corpus.text(key))))
        if progress is not None:
            progress("counting tokens", number + 1, len(sample))
    return Statistics(
        tuple(parts),
        tuple(sorted(projects, key=lambda part: (-part.functions, part.name))),
        {language: tuple(corpus.entries[key].source for key in keys) for language, keys in by_language.items()},
        tuple(tokens),
    )


def _part(corpus: Corpus, name: str, keys: Sequence[str]) -> Part:
    entries = [corpus.entries[key] for key in keys]
    return Part(
        name,
        len(entries),
        len(Counter(entry.project for entry in entries)),
        Distribution.of([entry.source for entry in entries]),
        Distribution.of([entry.oz for entry in entries]),
        Distribution.of([entry.oz_bytes for entry in entries]),
    )


def draw(found: Statistics, path: Path) -> None:
    """Write a picture: sizes by language, tokens, and the largest projects.

    Raises:
        CorpusError: matplotlib is not installed.
        InputError: the file cannot be written, or its suffix names no kind of picture.
    """
    try:
        import_module("matplotlib").use("Agg")
    except ImportError as error:
        raise CorpusError("the picture needs matplotlib: pip install 'secondpass[report]'") from error
    plt: Any = import_module("matplotlib.pyplot")
    import numpy

    figure, (sizes, tokens, projects) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    bins = numpy.geomspace(1, 10_000, 60)
    languages = sorted(found.sources)
    sizes.hist([found.sources[it] for it in languages], bins=bins, stacked=True, label=languages)
    sizes.set(xscale="log", xlabel="instructions, unoptimised", ylabel="functions", title="Size")
    if languages:
        sizes.legend()
    tokens.hist(found.tokens, bins=numpy.geomspace(10, 30_000, 60), color="tab:gray")
    tokens.set(xscale="log", xlabel="tokens", title=f"Length ({len(found.tokens):,} functions)")
    largest = found.projects[:25][::-1]
    projects.barh([part.name for part in largest], [part.functions for part in largest], color="tab:green")
    projects.set(xlabel="functions", title=f"Largest of {len(found.projects)} projects")
    projects.tick_params(axis="y", labelsize=7)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the picture cannot be written: {error}") from error
    finally:
        plt.close(figure)
