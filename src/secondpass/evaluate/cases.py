"""The functions an evaluation is about, and what was done to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secondpass.corpus.store import Corpus, Split
from secondpass.errors import CorpusError
from secondpass.tuner.labels import Label


@dataclass(frozen=True, slots=True)
class Case:
    """A held-out function.

    Attributes:
        key: its hash.
        project, language: where it comes from.
        text: normalised IR.
        bitcode: its module.
        source: instructions unoptimised.
        oz: instructions at -Oz.
        best: instructions with the autotuner's list.
        passes: the autotuner's list.
    """

    key: str
    project: str
    language: str
    text: str
    bitcode: bytes
    source: int
    oz: int
    best: int
    passes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """One list that was tried on a case.

    Attributes:
        passes: the list, as a pipeline's words.
        count: instructions it leaves; None where it cannot be used.
        source, target: the counts the model foresaw, or a search found; None for lists that neither wrote.
        log_probability: of the answer; 0 for lists that no model wrote.
        tokens: of the answer.
        turn: 0 for a first answer, 1 for one after feedback, 2 after another one.
        sample: which of the first answers this is, or follows.
        sure: what the answer's first line says; None where it has none.
        code_parses: whether the IR the model wrote parses; None where it wrote none.
        bleu: of that IR against the compiled one, 0 to 1.
    """

    passes: tuple[str, ...]
    count: int | None
    source: int | None = None
    target: int | None = None
    log_probability: float = 0.0
    tokens: int = 0
    turn: int = 0
    sample: int = 0
    sure: bool | None = None
    code_parses: bool | None = None
    bleu: float | None = None


@dataclass(frozen=True, slots=True)
class Trials:
    """What a method tried on a case, in order.

    Attributes:
        key: of the case.
        tried: list by list; empty where the method could not take the function.
        seconds: wall time.
        prompt_tokens: of the function, for a model.
        abridged: whether a model read only a part of it, since it is too long.
        answers, compiles: what it took, where that is not seen from the lists: a search keeps its best ones alone.
    """

    key: str
    tried: tuple[Tried, ...]
    seconds: float
    prompt_tokens: int = 0
    abridged: bool = False
    answers: int | None = None
    compiles: int | None = None


def read_cases(corpus: Corpus, labels: Mapping[str, Label], split: Split, limit: int | None = None) -> list[Case]:
    """The labelled functions of a split, the first `limit` by hash: a sample that does not depend on the model.

    Raises:
        CorpusError: none is labelled.
    """
    keys = [entry.hash for entry in corpus.select(split) if entry.hash in labels][:limit]
    if not keys:
        raise CorpusError(f"no function of the split '{split}' has a label: secondpass tune --split {split} makes them")
    cases: dict[str, Case] = {}
    for key in corpus.in_order_of_shards(keys):
        record, label = corpus.record(key), labels[key]
        cases[key] = Case(
            key,
            record.project,
            record.language,
            record.text,
            record.bitcode,
            record.source,
            label.oz,
            min(label.oz, label.best.value),
            label.best.passes,
        )
    return [cases[key] for key in keys]
