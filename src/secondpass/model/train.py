"""What `secondpass train` does, as a function: training data in, checkpoints out.

    trained = train(TrainRequest(data=(Path("build/data"),), out=Path("build/model"), preset="tiny"))

On one machine as it is, on several GPUs under `torchrun`. A training that was cut short goes on from its last
checkpoint as if nothing had happened: the data's order is a function of the seed, and everything else is in the
checkpoint.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch

from secondpass.corpus.store import Corpus
from secondpass.errors import InputError, ModelError
from secondpass.files import digest, lock
from secondpass.model import llama
from secondpass.model.batches import Plan
from secondpass.model.dataset import TOKENIZER, Dataset, Example, Split
from secondpass.model.machine import Session
from secondpass.model.manifest import Manifest
from secondpass.model.measure import GreedyAnswers
from secondpass.model.presets import Preset, Shape, override, preset
from secondpass.model.run import LOCK, Run, checkpoint_name, complete, read_facts
from secondpass.model.trainer import Hooks, Trainer, world_size
from secondpass.progress import Progress
from secondpass.prompt import END, Form


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """The options of `secondpass train`, as the command line has them."""

    data: tuple[Path, ...]
    """Directories of training data, all with the same tokenizer."""
    out: Path
    preset: str = "tiny"
    overrides: tuple[str, ...] = ()
    """`FIELD=VALUE` words for `presets.override`."""
    resume: bool = False
    """Go on with the training at `out`."""
    start_from: Path | None = None
    """A checkpoint whose weights to begin with."""
    corpus: Path | None = None
    """Which the data was made of: compile greedy answers in validations."""
    name: str | None = None
    """What reports call the model; by its preset where None."""
    threads: int | None = None
    """Of the matrix products; torch's own choice where None."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training.

    Attributes:
        out: its directory.
        parameters: trained numbers.
        last: the checkpoint of the last step.
        best: the checkpoint of the lowest validation loss.
        validation: the last validation, number by name.
    """

    out: Path
    parameters: int
    last: Path
    best: Path
    validation: Mapping[str, float]


def train(request: TrainRequest, progress: Progress | None = None) -> Trained:
    """Train a model, or go on training it.

    Raises:
        InputError: options that exclude each other, or another process is training at `out`.
        ModelError: data, recipe, directory or checkpoint do not fit, training diverges, or memory runs out.
        CorpusError: data or corpus cannot be read.
    """
    chosen, run = _chosen(request), Run(request.out)
    if not request.resume and _rank() == 0:
        run.check_new()
    training, validation = (read_data(request.data, split) for split in ("train", "validation"))
    chosen = replace(chosen, shape=replace(chosen.shape, vocabulary=training[0].tokenizer.size))
    plan = _plan(Chained(training), chosen)
    validation_plans = {name: _plan(it, chosen) for name, it in zip(_tasks(validation), validation)}
    facts = _facts(request.name or f"secondpass-{chosen.name}", chosen.shape, training)
    measure = None
    if request.corpus is not None and chosen.recipe.measured_functions:
        measure = GreedyAnswers.of(Corpus(request.corpus), validation, chosen.recipe.measured_functions, facts)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    settings = _settings(request, chosen)
    if request.resume:
        run.check(settings)
    begun = run.steps if request.resume else 0
    start_from = run.start_from if request.resume and not begun else request.start_from
    session = Session(run, begun)

    def describe(checkpoint: Path, step: int) -> None:
        complete(checkpoint, facts, request.data[0] / TOKENIZER)
        session.note(step)

    with _memory_explained(chosen):
        model = _model(start_from, chosen, training[0])
        trainer = Trainer(model, chosen.recipe, plan, validation_plans, run, Hooks(describe, measure, progress))
        with _alone(request.out):
            if _rank() == 0:  # the first process writes for all
                run.go_back(begun) if request.resume else run.begin(settings, request.start_from)
            best = trainer.run(request.out / checkpoint_name(begun) if begun else None)
    *_, record = (it for it in run.records() if it["kind"] == "validation")
    measured = {name: value for name, value in record.items() if name not in ("kind", "step", "epoch")}
    last, lowest = (request.out / checkpoint_name(step) for step in (chosen.recipe.steps, best))
    return Trained(request.out, chosen.shape.parameters, last, lowest, measured)


def read_data(directories: Sequence[Path], split: Split) -> list[Dataset]:
    """A split of several directories.

    Raises:
        ModelError: one is not training data of this version, its split is empty, or its tokenizer is another one.
        CorpusError: a file cannot be read.
    """
    found = [Dataset(directory, split) for directory in directories]
    for directory, it in zip(directories, found):
        if it.manifest.tokenizer != found[0].manifest.tokenizer:
            raise ModelError(
                f"{directory} and {directories[0]} have different tokenizers; "
                f"make one of them again with --tokenizer {directories[0] / TOKENIZER}"
            )
    return found


class Chained(Sequence[Example]):
    """Several data sets as one."""

    def __init__(self, parts: Sequence[Sequence[Example]]) -> None:
        """Put data sets one after the other."""
        self._parts: Sequence[Any] = parts
        self._starts = [0, *accumulate(map(len, parts))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]


def _chosen(request: TrainRequest) -> Preset:
    """The preset as it was asked for, and checks that need nothing else."""
    chosen = override(preset(request.preset), request.overrides)
    chosen.recipe.accumulation(world_size())
    if request.resume and request.start_from is not None:
        raise InputError("--from begins a training, --resume goes on with one: give one of them")
    if request.threads is not None and request.threads < 1:
        raise InputError(f"--threads {request.threads}: give a positive number")
    if chosen.recipe.tensorboard and find_spec("tensorboard") is None:
        raise ModelError("tensorboard=true needs TensorBoard: pip install tensorboard")
    if chosen.recipe.bf16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ModelError(f"{torch.cuda.get_device_name()} has no bfloat16: train with bf16=false")
    return chosen


def _plan(examples: Sequence[Example], chosen: Preset) -> Plan:
    plan = Plan(examples, chosen.recipe, chosen.shape.context)
    if plan.longest > chosen.shape.context:
        raise ModelError(
            f"the data has an example of {plan.longest} tokens, the model a context of {chosen.shape.context}; "
            f"train with context={plan.longest}, or make the data again with --context {chosen.shape.context}"
        )
    return plan


def _tasks(data: Sequence[Dataset]) -> list[str]:
    """A name for each data set: its task's, with a number where several have it."""
    tasks = [it.manifest.task for it in data]
    return [f"{task}_{number}" if tasks.count(task) > 1 else task for number, task in enumerate(tasks, 1)]


def _facts(name: str, shape: Shape, data: Sequence[Dataset]) -> Manifest:
    forms = sorted({it.manifest.form for it in data if it.manifest.form is not None})
    if len(forms) > 1:
        raise ModelError(f"the data teaches {' and '.join(forms)} feedback; a model takes one form: name data of one")
    return Manifest(
        name=name,
        context_length=shape.context,
        layers=shape.layers,
        key_value_heads=shape.key_value_heads,
        head_width=shape.head_width,
        takes_feedback=any(it.manifest.task == "feedback" for it in data),
        feedback_form=Form(forms[0]) if forms else Form.FAST,
        writes_code=any(it.manifest.code for it in data),
    )


def _model(start_from: Path | None, chosen: Preset, data: Dataset) -> llama.LlamaForCausalLM:
    """The model with the weights to begin with; random ones where there is no checkpoint to take them from."""
    end = data.tokenizer.id_of(END)
    if chosen.recipe.fsdp and _rank():
        return llama.unfilled(chosen.shape, end=end)  # the first process's weights are dealt to all
    if start_from is None:
        return llama.initial(chosen.shape, end=end, seed=chosen.recipe.seed)
    read_facts(start_from)  # or it was cut short, or is of another version
    if digest(start_from / TOKENIZER) != data.manifest.tokenizer:
        raise ModelError(
            f"{start_from} and the data have different tokenizers; "
            f"make the data again with --tokenizer {start_from / TOKENIZER}"
        )
    model = cast("Any", llama.load(start_from))
    if other := llama.difference(llama.shape_of(model.config), chosen.shape):
        raise ModelError(f"{start_from} has {other}; take its preset and settings")
    model.config.max_position_embeddings, model.config.eos_token_id = chosen.shape.context, end
    return model


def _settings(request: TrainRequest, chosen: Preset) -> dict[str, Any]:
    """All that decides what a training does, as JSON has it."""
    names = [f"{split}.parquet" for split in ("train", "validation")]
    data = {f"data {number}": [digest(it / name) for name in names] for number, it in enumerate(request.data, 1)}
    return {"preset": chosen.name, **chosen.settings(), **data}


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _alone(out: Path) -> AbstractContextManager[object]:
    """Keep other trainings out of a directory."""
    if _rank():
        return nullcontext()
    return lock(out / LOCK, f"{out}: another process is training there; wait for it or name another --out")


@contextmanager
def _memory_explained(chosen: Preset) -> Generator[None, None, None]:
    """Turn what torch says when memory runs out into an error that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not (isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text):
            raise
        recipe = chosen.recipe
        mends = [f"device_tokens below {recipe.device_tokens}"]
        mends += ["bf16=true"] * (not recipe.bf16) + ["recompute=true"] * (not recipe.recompute)
        mends += ["packing=false (shorter rows)"] * recipe.packing + ["fsdp=true on several GPUs"] * (not recipe.fsdp)
        raise ModelError(
            f"out of memory with forward passes of {recipe.device_tokens} tokens; try {', '.join(mends)}, in another "
            "--out (--from goes on with a checkpoint's weights)"
        ) from error
