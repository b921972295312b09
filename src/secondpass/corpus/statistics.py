"""What a corpus holds, in numbers and as a picture."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
_BARS = 60


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
        tokens: of the shipped tokenizer, over those of its functions that are in the sample; zeros where none is.
    """

    name: str
    functions: int
    projects: int
    source: Distribution
    oz: Distribution
    oz_bytes: Distribution
    tokens: Distribution


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a corpus holds.

    Attributes:
        parts: the whole, the splits, the languages.
        projects: each project with the functions that count for it, largest first.
        sources: every function's instructions, unoptimised.
        tokens: of a sample of the functions, by language as `sources`.
    """

    parts: tuple[Part, ...]
    projects: tuple[Part, ...]
    sources: dict[str, tuple[int, ...]]
    tokens: dict[str, tuple[int, ...]]

    @property
    def sample(self) -> int:
        """How many functions' tokens were counted."""
        return sum(map(len, self.tokens.values()))


def statistics(corpus: Corpus, progress: Progress | None = None) -> Statistics:
    """Count and measure. Tokens are counted on a sample."""
    entries = corpus.select()
    by_project: defaultdict[str, list[str]] = defaultdict(list)
    by_language: defaultdict[str, list[str]] = defaultdict(list)
    tokenizer = Tokenizer.load(SHIPPED / "tokenizer.json")
    sample = corpus.in_order_of_shards(entry.hash for entry in entries[:_SAMPLE])
    tokens: dict[str, int] = {}
    for key in sample:
        tokens[key] = len(tokenizer.encode_ir(corpus.text(key)))
        if progress is not None:
            progress("counting tokens", len(tokens), len(sample))
    for entry in entries:
        by_project[entry.project].append(entry.hash)
        by_language[entry.language].append(entry.hash)
    by_split = {split: [entry.hash for entry in entries if entry.split == split] for split in SPLITS}
    named = {"all": [entry.hash for entry in entries], **by_split, **dict(sorted(by_language.items()))}
    parts = [_part(corpus, name, keys, tokens) for name, keys in named.items()]
    projects = [_part(corpus, project, keys, tokens) for project, keys in by_project.items()]
    return Statistics(
        tuple(parts),
        tuple(sorted(projects, key=lambda part: (-part.functions, part.name))),
        {language: tuple(corpus.entries[key].source for key in keys) for language, keys in by_language.items()},
        {language: tuple(tokens[key] for key in keys if key in tokens) for language, keys in by_language.items()},
    )


def _part(corpus: Corpus, name: str, keys: Sequence[str], tokens: Mapping[str, int]) -> Part:
    entries = [corpus.entries[key] for key in keys]
    return Part(
        name,
        len(entries),
        len(Counter(entry.project for entry in entries)),
        Distribution.of([entry.source for entry in entries]),
        Distribution.of([entry.oz for entry in entries]),
        Distribution.of([entry.oz_bytes for entry in entries]),
        Distribution.of([tokens[key] for key in keys if key in tokens]),
    )


def draw(found: Statistics, path: Path) -> None:
    """Write a picture: sizes and tokens by language, and the largest projects.

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
    languages = sorted(found.sources)
    for axis, counted, least in ((sizes, found.sources, 1), (tokens, found.tokens, 10)):
        most = max((max(it, default=0) for it in counted.values()), default=0)
        bins = numpy.geomspace(least, max(most, 10 * least) + 1, _BARS)
        axis.hist([counted[it] for it in languages], bins=bins, stacked=True, label=languages)
        axis.set(xscale="log", ylabel="functions")
        if languages:
            axis.legend()
    sizes.set(xlabel="instructions, unoptimised", title="Size")
    tokens.set(xlabel="tokens", title=f"Length ({found.sample:,} functions)")
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
