"""What `secondpass data` does, as functions: labelled functions in, training data out."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from secondpass.corpus.store import Corpus, Entry
from secondpass.errors import InputError, ModelError
from secondpass.files import digest, lock
from secondpass.llvm.passes import Words
from secondpass.llvm.sandbox import Sandbox
from secondpass.model.answering import Answering
from secondpass.model.data import (
    LIST_SECONDS,
    Labelled,
    compile_targets,
    feedback_example,
    optimize_example,
    popularity,
    read_labelled,
    widened,
    with_counted,
)
from secondpass.model.dataset import (
    ANSWERS,
    SPLITS,
    TOKENIZER,
    Example,
    Manifest,
    Split,
    begin,
    being_written,
    write_split,
)
from secondpass.model.tokenizer import VOCABULARY_SIZE, Tokenizer
from secondpass.progress import Progress
from secondpass.prompt import Form, Objective
from secondpass.strategies.base import HOTTEST, MOST_ANSWERS, check_sampling
from secondpass.tuner.coreset import coreset
from secondpass.tuner.labels import Label, objective_of, read_labels
from secondpass.tuner.outcomes import Outcomes, read_outcomes, try_lists

_MOST_ANSWERS = 16
"""More are not worth their tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizeRequest:
    """The options of `secondpass data optimize`, as the command line has them."""

    corpus: Path
    labels: tuple[Path, ...]
    """One file an objective."""
    out: Path
    tokenizer: Path | None = None
    """Learnt from the training functions where none is named."""
    vocabulary: int = VOCABULARY_SIZE
    """Tokens of a tokenizer that is learnt."""
    context: int = 2048
    """Tokens of the longest example."""
    answers: int = 4
    """Lists taught a function at most."""
    counted: int = 0
    """Lists a function at most, drawn from the outcomes, whose counts alone are taught."""
    outcomes: tuple[Path, ...] = ()
    """What some lists do on many functions: taught where they are good. One file an objective at most."""
    code: bool = False
    """Whether answers hold the optimised IR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackRequest:
    """The options of `secondpass data feedback`, as the command line has them."""

    corpus: Path
    labels: Path
    """For the objective instructions: an answer foresees instructions."""
    out: Path
    model: Path
    """Whose answers the feedback is on."""
    form: Form
    code: bool = True
    """Whether answers hold the IR they expect, where the form speaks of it; without, Long Feedback tells of a list what
    it leaves, and Short no more than Fast."""
    temperature: float = 0.0
    samples: int = 1
    seed: int = 0
    context: int = 2048
    answers: int = 4
    outcomes: Path | None = None
    functions: int | None = None
    """Only so many training functions, and an eighth as many validation functions."""
    improved: bool = False
    """Only functions on which something is known to beat -Oz."""
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomesRequest:
    """The options of `secondpass data outcomes`, as the command line has them."""

    corpus: Path
    out: Path
    """What it has already is not tried again."""
    objective: Objective = Objective.INSTRUCTIONS
    coreset: int = 50
    """So many lists."""
    largest: int = 600
    """Functions of more instructions are left out."""
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """Training data that was written.

    Attributes:
        out: its directory.
        manifest: what it holds.
        tokens: mean and median tokens of the training examples' contexts.
    """

    out: Path
    manifest: Manifest
    tokens: tuple[float, float]


def make_outcomes(request: OutcomesRequest, progress: Progress | None = None) -> Outcomes:
    """Try the coreset on the training and validation functions.

    Raises:
        InputError: an option makes no sense, or `out` is in use.
        CorpusError: the corpus or the file cannot be read, or was made with other versions or lists.
    """
    if request.largest < 1 or request.workers < 0:
        raise InputError("--largest must be positive, --workers not negative")
    corpus, lists = Corpus(request.corpus), coreset(request.objective, request.coreset)
    keys = [it.hash for it in corpus.select(*SPLITS) if it.source <= request.largest]
    busy = f"{request.out}: another command is adding to it; wait for it or name another --out"
    tell = partial(_tell, progress, f"{request.objective}: trying {len(lists)} lists")
    with (
        lock(request.out.with_name(f"{request.out.name}.lock"), busy),
        Sandbox(request.workers, LIST_SECONDS, reproducible=True) as sandbox,
    ):
        return try_lists(corpus, keys, lists, request.out, request.objective, sandbox, tell)


def make_optimize(request: OptimizeRequest, progress: Progress | None = None) -> Made:
    """Write the data of task Optimize.

    Raises:
        InputError: an option makes no sense, or `out` is in use.
        CorpusError: corpus or labels cannot be read, or were made with other versions.
        ModelError: a split holds no labelled function, or the tokenizer is of another version.
    """
    _check_answers(request.answers)
    if request.context < 1:
        raise InputError("--context must be positive")
    if request.counted < 0:
        raise InputError("--counted must not be negative")
    with being_written(request.out):
        corpus = Corpus(request.corpus)
        labels = labels_by_objective(request.labels, corpus)
        outcomes = {objective_of(path): read_outcomes(path, objective_of(path)) for path in request.outcomes}
        if request.counted and Objective.INSTRUCTIONS not in outcomes:
            raise InputError("--counted needs --outcomes of the objective instructions to draw lists from")
        if stray := outcomes.keys() - labels.keys():
            raise InputError(f"--outcomes for the objective {', '.join(stray)}, of which there are no labels")
        labels |= {objective: widened(labels[objective], table) for objective, table in outcomes.items()}
        popular = {objective: popularity_in_training(corpus, it) for objective, it in labels.items()}
        functions = {split: _functions(corpus, labels, popular, split, request.answers) for split in SPLITS}
        tokenizer = _tokenizer(request, functions["train"])
        begin(request.out, tokenizer)
        made = _Writer(request.out, request.context)
        for split in SPLITS:
            if request.code or Objective.BYTES in labels:
                with Sandbox(0, LIST_SECONDS, reproducible=True) as sandbox:
                    functions[split] = compile_targets(corpus, functions[split], sandbox, code=request.code)
            if request.counted:
                functions[split] = with_counted(functions[split], outcomes[Objective.INSTRUCTIONS], request.counted)
            made.write(split, _examples(functions[split], tokenizer, split, progress))
        return made.finish("optimize", None, request.code, {**asdict(request), **dict.fromkeys(_PATHS)})


def make_feedback(request: FeedbackRequest, progress: Progress | None = None) -> Made:
    """Write the data of task Feedback: a model's own answers, what the compiler says of them, and what to say then.

    The answers are kept while they come: the same call goes on where one was killed.

    Raises:
        InputError: an option makes no sense, or `out` is in use.
        CorpusError: corpus or labels cannot be read, or were made with other versions.
        ModelError: the model cannot be read, or a split holds no labelled function.
        EngineError: answers are to hold code, and the model writes none; or the model's process died.
    """
    if request.workers < 0 or (request.functions is not None and request.functions < 1):
        raise InputError("--functions must be positive, --workers not negative")
    check_sampling(request.seed, None, None)
    if not 1 <= request.samples <= MOST_ANSWERS or not 0 <= request.temperature <= HOTTEST:
        raise InputError(f"--samples must be 1 to {MOST_ANSWERS}, --temperature 0 to {HOTTEST:g}")
    _check_answers(request.answers)
    request = replace(request, code=request.code and request.form is not Form.FAST)
    with being_written(request.out):
        corpus = Corpus(request.corpus)
        labels = read_labels(request.labels, Objective.INSTRUCTIONS, corpus)
        if request.outcomes is not None:
            labels = widened(labels, read_outcomes(request.outcomes, Objective.INSTRUCTIONS))
        popular = popularity_in_training(corpus, labels)
        workers = request.workers or len(os.sched_getaffinity(0))
        answering = Answering(
            request.model, request.samples, request.temperature, request.seed, request.form, workers, request.code
        )
        tokenizer = answering.tokenizer
        begin(request.out, tokenizer)
        made, kept = _Writer(request.out, request.context), request.out / ANSWERS
        for split in SPLITS:
            most = request.functions
            if most is not None and split == "validation":
                most = math.ceil(most / 8)
            entries = labelled_entries(corpus, labels, split)
            entries = [it for it in entries if labels[it.hash].gain or not request.improved][:most]
            every = read_labelled(corpus, entries, labels, Objective.INSTRUCTIONS, popular, request.answers)
            functions = [it for it in every if len(tokenizer.encode_prompt(it.prompt)) < request.context]
            if request.code:
                with Sandbox(0, LIST_SECONDS, reproducible=True) as sandbox:
                    functions = compile_targets(corpus, functions, sandbox, code=True)
            known = {it.function: it for it in functions}
            told = partial(_tell, progress, f"{split}: answers")
            examples = (
                feedback_example(known[key], first, verdict, request.form, tokenizer)
                for key, first, verdict in answering.on(corpus, functions, kept, told)
            )
            made.write(split, examples, too_long=len(every) - len(functions))
        finished = made.finish("feedback", request.form, request.code, {**asdict(request), **dict.fromkeys(_PATHS)})
        kept.unlink()
        return finished


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


_PATHS = ("corpus", "labels", "outcomes", "out", "model", "tokenizer")
"""Options that say nothing on another machine."""


def labels_by_objective(paths: Sequence[Path], corpus: Corpus) -> dict[Objective, dict[str, Label]]:
    """The labels of several files, as far as they are true of a corpus; each objective once.

    Raises:
        InputError: two files are of one objective.
        CorpusError: a file cannot be read, or was made with other versions.
    """
    found: dict[Objective, dict[str, Label]] = {}
    for path in paths:
        objective = objective_of(path)
        if objective in found:
            raise InputError(f"{path}: a second file of labels for the objective {objective}; name one")
        found[objective] = read_labels(path, objective, corpus)
    return found


def _check_answers(answers: int) -> None:
    if not 1 <= answers <= _MOST_ANSWERS:
        raise InputError(f"--answers {answers}: ask for 1 to {_MOST_ANSWERS}")


def _functions(
    corpus: Corpus,
    labels: Mapping[Objective, Mapping[str, Label]],
    popular: Mapping[Objective, Mapping[Words, int]],
    split: Split,
    answers: int,
) -> list[Labelled]:
    found: list[Labelled] = []
    for objective, of_objective in labels.items():
        entries = labelled_entries(corpus, of_objective, split)
        found += read_labelled(corpus, entries, of_objective, objective, popular[objective], answers)
    return found


def labelled_entries(corpus: Corpus, labels: Mapping[str, Label], split: Split) -> list[Entry]:
    """The functions of a split that have a label, in the order of their hashes.

    Raises:
        ModelError: there is none.
    """
    entries = [entry for entry in corpus.select(split) if entry.hash in labels]
    if not entries:
        raise ModelError(f"no function of the split '{split}' has a label: secondpass tune --split {split} makes them")
    return entries


def popularity_in_training(corpus: Corpus, labels: Mapping[str, Label]) -> Counter[Words]:
    """`data.popularity` of the training functions alone."""
    return popularity(labels[entry.hash] for entry in labelled_entries(corpus, labels, "train"))


def _tokenizer(request: OptimizeRequest, training: Sequence[Labelled]) -> Tokenizer:
    if request.tokenizer is not None:
        return Tokenizer.load(request.tokenizer)
    return Tokenizer.train((it.ir for it in training), request.vocabulary)


def _examples(
    functions: Sequence[Labelled], tokenizer: Tokenizer, split: Split, progress: Progress | None
) -> Iterator[Example]:
    for done, function in enumerate(functions, 1):
        yield optimize_example(function, tokenizer)
        _tell(progress, f"{split}: tokens", done, len(functions))


@dataclass(slots=True)
class _Writer:
    """Writes a directory split by split, and counts."""

    out: Path
    context: int
    counts: dict[str, int] = field(default_factory=dict[str, int])
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    lengths: list[int] = field(default_factory=list[int])

    def write(self, split: Split, examples: Iterator[Example], too_long: int = 0) -> None:
        """Write the examples that fit; so many functions more were seen to be too long before."""
        found = list(examples)
        fitting = [it for it in found if it.longest <= self.context]
        functions = {it.function for it in found}
        if not fitting:
            every = len(functions) + too_long
            raise ModelError(f"none of {every} {split} functions fits {self.context} tokens; raise --context")
        self.counts[split] = len(fitting)
        self.left_out[split] = len(functions - {it.function for it in fitting}) + too_long
        if split == "train":
            self.lengths = [len(it.context) for it in fitting]
        write_split(self.out, split, fitting)

    def finish(self, task: str, form: str | None, code: bool, options: dict[str, Any]) -> Made:
        """Write the manifest, last: without it the directory is no training data."""
        manifest = Manifest(
            task=task,
            form=form,
            code=code,
            context=self.context,
            tokenizer=digest(self.out / TOKENIZER),
            counts=self.counts,
            left_out=self.left_out,
            made_from={name: value for name, value in options.items() if isinstance(value, int | float | str)},
        )
        manifest.write(self.out)
        return Made(self.out, manifest, (statistics.mean(self.lengths), statistics.median(self.lengths)))
