"""The loop of `transformers`, fed with planned forward passes, and measuring what we want to know.

    trainer = Trainer(model, recipe, plan, validation, run, checkpoint_files)
    trainer.train(resume_from_checkpoint=None)

Gradient accumulation, mixed precision, sharding and checkpoints are the base class's and accelerate's. Ours are the
data's order, the learning rate, the validation, and the log. `model.train` sets it up.
"""

# The base classes have no types that pyright could read.
# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import accelerate as untyped_accelerate  # pyright: ignore[reportMissingTypeStubs]
import torch
from torch import Tensor

from secondpass.errors import ModelError
from secondpass.model.batches import Batch, Plan
from secondpass.model.llama import LlamaForCausalLM, shape_of, transformers, unfilled
from secondpass.model.presets import Recipe
from secondpass.model.run import Run, checkpoint_name
from secondpass.progress import Progress

accelerate: Any = untyped_accelerate
Measure = Callable[[Any], Mapping[str, float]]
"""Measures a model: numbers by name."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a training asks of others.

    Attributes:
        describe: completes a checkpoint: its directory, and the steps that are done.
        measure: measures the model in a validation, in the first process alone; None for no more than losses.
        progress: shown to people; None for nobody.
    """

    describe: Callable[[Path, int], None]
    measure: Measure | None = None
    progress: Progress | None = None


class Passes(torch.utils.data.Dataset[dict[str, Any]]):
    """The forward passes of a whole training, one after the other."""

    def __init__(self, plan: Plan, recipe: Recipe) -> None:
        self._plan, self._count, self._steps = plan, recipe.passes, recipe.steps

    def __len__(self) -> int:
        return self._steps * self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return inputs_of(self._plan.batch(*divmod(index, self._count)))


def inputs_of(batch: Batch) -> dict[str, Any]:
    """A forward pass as `LlamaForCausalLM.forward` takes it, with the batch's counts beside it."""
    arrays: dict[str, Any] = {"input_ids": batch.tokens}
    if batch.causal < batch.tokens.shape[1]:
        arrays |= {"position_ids": batch.positions, "examples": batch.examples, "answers": batch.answers}
    arrays |= {"learnt": batch.learnt, "targets": batch.targets, "weights": batch.weights}
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return {**tensors, "causal": batch.causal, **{name: getattr(batch, name) for name in _COUNTS}}


_COUNTS = ("answer_tokens", "count_tokens", "used")
"""What a forward pass is told for the log alone."""


class Trainer(transformers.Trainer):
    """One training; every process has one."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        recipe: Recipe,
        plan: Plan,
        validation: Mapping[str, Plan],
        run: Run,
        hooks: Hooks,
    ) -> None:
        """Set up a training.

        Args:
            model: with its first weights.
            recipe: how to train it.
            plan: of the training examples.
            validation: of the validation examples of each task, by its name.
            run: the directory.
            hooks: what is asked of others.
        """
        self._recipe, self._plan, self._run, self._hooks = recipe, plan, run, hooks
        self._validation = {task: it.validation(_VALIDATED) for task, it in validation.items()}
        arguments = training_arguments(recipe, run.out)
        if recipe.recompute and not arguments.fsdp:
            model.recompute()
        passes = Passes(plan, recipe)
        super().__init__(model, arguments, _first, train_dataset=passes, eval_dataset=dict(self._validation))
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        self.add_callback(_Watch(self))
        self._sums = torch.zeros(len(_SUMS), device=self.args.device)
        self._since, self._before, self._logged = time.monotonic(), 0.0, 0
        self._loss: float | None = None

    # The data's order and the learning rate

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The recipe's learning rate."""
        scheduler: Any = self.lr_scheduler
        if scheduler is None:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self._rate_share)
            self.lr_scheduler, self._created_lr_scheduler = scheduler, True
        return scheduler

    def _rate_share(self, step: int) -> float:
        return self._recipe.rate(step) / self._recipe.peak_rate

    def create_accelerator_and_postprocess(self) -> None:
        """Shard on every device, reduce sharded gradients in float32, and leave the weights of the loss as they are.

        Raises:
            ModelError: sharding was asked for, and is not in force.
        """
        super().create_accelerator_and_postprocess()
        if not self.args.fsdp:
            return
        from torch.distributed.fsdp import MixedPrecisionPolicy

        state, sharded = self.accelerator.state, accelerate.utils.DistributedType.FSDP
        if self.args.use_cpu:
            # accelerate drops the plugin on processors without a word; its sharding itself runs there as on GPUs.
            plugin_arguments: dict[str, Any] = getattr(self.args, "fsdp_plugin_args", None) or {}
            state.fsdp_plugin = accelerate.utils.FullyShardedDataParallelPlugin(**plugin_arguments)
            state.distributed_type = accelerate.PartialState().distributed_type = sharded
            self.is_fsdp_enabled = True
        if not self.is_fsdp_enabled or state.distributed_type != sharded:
            raise ModelError("accelerate does not shard on these devices: train with fsdp=false, or on GPUs")
        if self._recipe.bf16:
            state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )

    # A step

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> Tensor:
        """Forward and backward; raises ModelError where the loss is no number."""
        base: Any = super()
        loss: Tensor = base.training_step(model, inputs, *rest)
        if not math.isfinite(float(loss)):
            self.refuse("loss", float(loss))
        return loss

    def refuse(self, what: str, value: float) -> None:
        """Raise ModelError: training has diverged."""
        last = self._run.checkpoints()[-1:]
        kept = f"; {last[0].name} is from before" if last else ""
        raise ModelError(
            f"step {self.state.global_step + 1}: the {what} is {value} at a learning rate of "
            f"{self.lr_scheduler.get_last_lr()[0]:.3g}{kept}. Train with a lower peak_rate, more warmup_steps or a "
            "smaller clip_norm"
        )

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """The model's loss; its parts are summed up for the log."""
        tensors = dict(inputs)
        counts = [tensors.pop(name) for name in _COUNTS]
        found: dict[str, Tensor] = model(**tensors)
        self._sums += _parts(found, tensors["weights"], *counts)
        return (found["loss"], found) if return_outputs else found["loss"]

    # The log

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        """Write a record: a training loss, a validation, or the end."""
        if "loss" in logs:
            logs = self._training_record(logs)
        kind = "train" if "loss" in logs else "validation" if "eval_loss" in logs else "end"
        self.state.epoch = self._plan.epochs(self.state.global_step)
        super().log(logs, *rest)
        if self.is_world_process_zero() and kind != "end":
            values = {name.removeprefix("eval_"): value for name, value in logs.items() if name != "epoch"}
            self._run.log({"kind": kind, "step": self.state.global_step, "epoch": self.state.epoch, **values})

    def _training_record(self, logs: dict[str, float]) -> dict[str, float]:
        steps = self.state.global_step - self._logged
        answers, counts, prompts, right, used = self.accelerator.reduce(self._sums, reduction="sum").tolist()
        self._sums.zero_()
        now = time.monotonic()
        seconds, self._since, self._logged = now - self._since, now, self.state.global_step
        self._before += seconds
        passes = steps * self._recipe.passes
        self._loss = answers / passes
        return {
            "loss": (answers + counts + prompts) / passes,
            "answer_loss": answers / passes,
            "count_loss": _without(self._recipe.count_weight, counts / passes),
            "prompt_loss": _without(self._recipe.prompt_weight, prompts / passes),
            "right": right / passes,
            "norm": logs["grad_norm"],
            "rate": logs["learning_rate"],
            "tokens": int(used),
            "tokens_a_second": used / seconds,
            "seconds": self._before,
        }

    # Validation

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Losses and shares of right answer tokens, task by task, and what `Hooks.measure` says."""
        began = time.monotonic()
        self.model.eval()
        metrics: dict[str, float] = {}
        for task, batches in self._validation.items():
            answers, counts, prompts, right = self._validate(batches)[:4]
            metrics[f"eval_{task}_answer_loss"] = answers
            metrics[f"eval_{task}_count_loss"] = _without(self._recipe.count_weight, counts)
            metrics[f"eval_{task}_prompt_loss"] = _without(self._recipe.prompt_weight, prompts)
            metrics[f"eval_{task}_right"] = right
        losses = [metrics[f"eval_{task}_answer_loss"] for task in self._validation]
        metrics = {"eval_loss": sum(losses) / len(losses), **metrics}
        if self._hooks.measure is not None:
            model = self._whole_model()
            if model is not None:
                metrics |= {f"eval_{name}": value for name, value in self._hooks.measure(model).items()}
            self.accelerator.wait_for_everyone()
        self.model.train()
        self._since += time.monotonic() - began  # it is not the training's time
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def _validate(self, batches: Sequence[Batch]) -> list[float]:
        """The sums of `_SUMS`; the passes are dealt to the processes, which all take equally many."""
        world, rank = cast("tuple[int, int]", (self.args.world_size, self.args.process_index))
        sums = torch.zeros(len(_SUMS), device=self.args.device)
        for first in range(0, len(batches), world):
            inputs = self._prepare_inputs(inputs_of(batches[min(first + rank, len(batches) - 1)]))
            counts = [inputs.pop(name) for name in _COUNTS]
            found = self.model(**inputs)
            if first + rank < len(batches):
                sums += _parts(found, inputs["weights"], *counts)
        return self.accelerator.reduce(sums, reduction="sum").tolist()

    def _whole_model(self) -> Any:
        """The model with all its weights; None in all processes but the first."""
        if not self.is_fsdp_enabled:
            return self.model if self.is_world_process_zero() else None
        weights: dict[str, Tensor] = self.accelerator.get_state_dict(self.model)
        if not self.is_world_process_zero():
            return None
        model: Any = unfilled(shape_of(self.model.config), end=None)
        model.load_state_dict(weights, assign=True)
        return model.to(self.args.device, torch.bfloat16 if self._recipe.bf16 else torch.float32).eval()

    # Checkpoints

    def run(self, checkpoint: Path | None) -> int:
        """Train to the end.

        Args:
            checkpoint: where to go on; None for the beginning.

        Returns:
            The step of the lowest validation loss.
        """
        self._logged = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
        if self.is_world_process_zero():
            self._before = max((it.get("seconds", 0.0) for it in self._run.records()), default=0.0)
        self._since = time.monotonic()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self.accelerator.end_training()
        return self.state.best_global_step

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write the weights; what was gathered of shards no longer says that two of them are one."""
        if state_dict and self.model.config.tie_word_embeddings:
            state_dict = {name: it for name, it in state_dict.items() if name != "lm_head.weight"}
        super()._save(output_dir, state_dict)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint whole, then delete all but it and the best one."""
        began = time.monotonic()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            steps = self.state.global_step, self.state.best_global_step
            kept = [self._run.out / checkpoint_name(step) for step in steps if step]
            self._hooks.describe(kept[0], self.state.global_step)
            self._run.keep(kept)
        self._since += time.monotonic() - began

    def show(self) -> None:
        """Tell people how far it is."""
        if self._hooks.progress is not None and self.is_world_process_zero():
            what = "training" if self._loss is None else f"training: loss {self._loss:.3f}"
            self._hooks.progress(what, self.state.global_step, self._recipe.steps)


class _Watch(transformers.TrainerCallback):
    """Calls the trainer where its base class has no method to override."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Let no gradient that is no number reach the weights."""
        gradients = (it.grad for it in self._trainer.model.parameters() if it.grad is not None)
        # Of sharded ones each process looks at its own part.
        norm = float(torch.nn.utils.get_total_norm([getattr(it, "_local_tensor", it) for it in gradients]))
        if not math.isfinite(norm):
            self._trainer.refuse("gradient's norm", norm)

    def on_step_end(self, _args: Any, state: Any, control: Any, **__: Any) -> None:
        """Validate at the end too."""
        self._trainer.show()
        control.should_evaluate |= state.global_step >= state.max_steps

    def on_evaluate(self, _args: Any, state: Any, control: Any, metrics: Mapping[str, float], **_: Any) -> None:
        """Keep the best model."""
        best = state.best_metric is None or metrics["eval_loss"] < state.best_metric
        control.should_save |= best or state.global_step >= state.max_steps


_LOADERS = 4
"""Processes that lay forward passes out while a GPU works; a processor has nothing to wait for."""
_VALIDATED = 512
"""Validation examples of each task at most."""
_FSDP = True if int(transformers.__version__.partition(".")[0]) >= 5 else "full_shard auto_wrap"
_SUMS = ("answer loss", "count loss times its weight", "prompt loss times its weight", "right answer tokens", "tokens")


def _parts(found: Mapping[str, Tensor], weights: Tensor, answers: int, counts: int, used: int) -> Tensor:
    """What a forward pass adds to each of `_SUMS`."""
    losses = found["losses"] * weights
    right = (found["right"] * weights)[:answers].sum()
    parts = losses[:answers], losses[answers : answers + counts], losses[answers + counts :]
    return torch.stack((*(it.sum() for it in parts), right, torch.tensor(float(used), device=right.device)))


def _without(weight: float, loss: float) -> float:
    """A loss that was logged times its weight."""
    return loss / weight if weight else 0.0


def _first(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return batches[0]


def world_size() -> int:
    """Processes that train together, as `torchrun` says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def training_arguments(recipe: Recipe, out: Path) -> Any:
    """What the base class is told.

    Raises:
        ModelError: the recipe does not fit the number of processes.
    """
    cpu = not torch.cuda.is_available()
    world = world_size()
    sharded = recipe.fsdp and world > 1
    fsdp_config = {"version": 2, "cpu_ram_efficient_loading": True, "activation_checkpointing": recipe.recompute}
    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        max_steps=recipe.steps,
        per_device_train_batch_size=1,  # a batch of one planned forward pass
        gradient_accumulation_steps=recipe.accumulation(world),
        learning_rate=recipe.peak_rate,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        max_grad_norm=recipe.clip_norm,
        optim="adamw_torch_fused",
        bf16=recipe.bf16,
        seed=recipe.seed,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and world > 1 else None,
        ddp_find_unused_parameters=False,
        **({"fsdp": _FSDP, "fsdp_config": fsdp_config} if sharded else {}),
        logging_steps=recipe.log_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=recipe.validate_steps,
        save_strategy="steps",
        save_steps=recipe.checkpoint_steps,
        metric_for_best_model="loss",
        greater_is_better=False,
        report_to=["tensorboard"] if recipe.tensorboard else [],
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        dataloader_num_workers=0 if cpu else _LOADERS,
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # one process drives one GPU; torchrun starts more
    return arguments
