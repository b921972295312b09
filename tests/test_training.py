"""Presets, and training from them: to the same weights whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import learning
import pytest

from secondpass.errors import InputError, ModelError
from secondpass.model.presets import PRESETS, Recipe, Shape, override, preset


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tiny", 7e6, 9e6), ("small", 25e6, 40e6), ("base", 330e6, 370e6), ("paper-7b", 6_738_415_616, 6_738_415_616)],
)
def test_a_preset_has_the_parameters_it_promises(name: str, low: float, high: float) -> None:
    assert low <= preset(name).shape.parameters <= high


def test_the_papers_preset_is_the_papers_recipe() -> None:
    shape, recipe = preset("paper-7b").shape, preset("paper-7b").recipe
    assert (shape.layers, shape.heads, shape.width, shape.feed_forward) == (32, 32, 4096, 11_008)
    assert (recipe.steps, recipe.warmup_steps, recipe.betas) == (20_000, 1_000, (0.9, 0.95))
    assert recipe.step_tokens == 256 * shape.context
    assert (recipe.rate(1_000), recipe.rate(20_000)) == pytest.approx((1e-5, 1e-6))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"width": 0}, "width"), ({"heads": 3}, "heads"), ({"heads": 4, "key_value_heads": 3}, "key_value_heads")],
)
def test_a_shape_that_does_not_fit_together_is_refused(settings: dict[str, int], named: str) -> None:
    with pytest.raises(ModelError, match=named):
        Shape(vocabulary=100, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tie_share": 1.5}, r"Recipe\.tie_share must lie between 0 and 1, not 1\.5"),
        ({"steps": 0}, r"Recipe\.steps must be positive, not 0"),
        ({"peak_rate": float("nan")}, r"Recipe\.peak_rate must be positive, not nan"),
        ({"betas": (0.9, 1.0)}, r"Recipe\.betas"),
        ({"step_tokens": 1000, "device_tokens": 300}, r"Recipe\.step_tokens 1000 is not a multiple of device_tokens"),
        ({"steps": 10, "warmup_steps": 11}, r"Recipe\.warmup_steps 11 are more than all 10 steps"),
    ],
)
def test_a_recipe_out_of_range_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Recipe(**settings)


def test_words_change_fields_of_their_kind() -> None:
    changed = override(preset("tiny"), ["steps=1_000", "betas=0.8,0.9", "bf16=false", "width=640", "peak_rate=1e-4"])
    expected = replace(preset("tiny").recipe, steps=1000, betas=(0.8, 0.9), bf16=False, peak_rate=1e-4)
    assert (changed.recipe, changed.shape) == (expected, replace(preset("tiny").shape, width=640))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("steps=many", "'steps=many': steps takes a whole number, not 'many'"),
        ("bf16=1", "'bf16=1': bf16 takes true or false, not '1'"),
        ("betas=0.9", "'betas=0.9': betas takes two numbers"),
        ("vocabulary=9", "no field is called 'vocabulary'; give FIELD=VALUE of context, width"),
        ("stepz=9", "no field is called 'stepz'"),
        ("clip_norm=-1", r"Recipe\.clip_norm must be positive, not -1"),
    ],
)
def test_a_word_that_fits_no_field_is_refused(word: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        override(preset("tiny"), [word])


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ModelError, match=f"'huge'; there are {', '.join(PRESETS)}"):
        preset("huge")


def test_the_rate_warms_up_and_falls_to_its_share() -> None:
    recipe = Recipe(peak_rate=1.0, final_share=0.1, warmup_steps=10, steps=100)
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(10) == pytest.approx(1.0)
    assert recipe.rate(55) == pytest.approx(0.55)
    assert recipe.rate(100) == pytest.approx(0.1)


def test_passes_are_dealt_evenly_or_refused() -> None:
    recipe = Recipe(step_tokens=8192, device_tokens=1024)
    assert [recipe.accumulation(devices) for devices in (1, 2, 4, 8)] == [8, 4, 2, 1]
    with pytest.raises(ModelError, match=r"8 forward passes a step .* 3 devices"):
        recipe.accumulation(3)


@pytest.fixture(scope="module")
def extra() -> None:
    for name in ("torch", "transformers", "accelerate", "pyarrow"):
        pytest.importorskip(name, reason="needs secondpass[train]")
    # Several threads on cores that others use wait for each other most of the time.
    sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module")
def data(extra, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learning.write_data(tmp_path_factory.mktemp("training") / "data")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    train(data, out)
    return out


class TestWithTorch:
    """What needs the extra `train`."""

    @pytest.fixture(autouse=True)
    def _needed(self, extra) -> None:
        pass

    def test_training_learns_and_logs(self, whole: Path) -> None:
        found = records(whole)
        assert [it["step"] for it in found if it["kind"] == "train"] == list(range(1, 13))
        assert [it["step"] for it in found if it["kind"] == "validation"] == [4, 8, 12]
        first, *_, last = [it for it in found if it["kind"] == "train"]
        assert last["answer_loss"] < first["answer_loss"] / 2
        assert last["right"] > first["right"]
        assert last["loss"] == pytest.approx(last["answer_loss"] + 0.2 * last["prompt_loss"])
        assert first["rate"] == pytest.approx(0.005)

    def test_the_last_and_the_best_checkpoint_are_kept(self, data: Path, whole: Path, tmp_path: Path) -> None:
        from secondpass.model.run import Run

        assert [it.name for it in Run(whole).checkpoints()] == ["checkpoint-12"]
        # At this rate every step makes it far worse.
        trained = train(data, tmp_path / "out", "peak_rate=3", "warmup_steps=12", "prompt_weight=0")
        losses = {it["step"]: it["loss"] for it in records(tmp_path / "out") if it["kind"] == "validation"}
        best = min(losses, key=losses.__getitem__)
        assert best < 12
        assert trained.best.name == f"checkpoint-{best}"
        assert [it.name for it in Run(tmp_path / "out").checkpoints()] == [f"checkpoint-{best}", "checkpoint-12"]

    def test_the_directory_says_exactly_what_was_done(self, whole: Path) -> None:
        run = json.loads((whole / "run.json").read_text())
        assert run["settings"]["preset"] == "tiny"
        assert (run["settings"]["width"], run["settings"]["steps"]) == (32, 12)
        (session,) = run["sessions"]
        assert (session["from_step"], session["to_step"], session["processes"], session["threads"]) == (0, 12, 1, 1)
        assert {"torch", "transformers", "accelerate", "python"} <= session["versions"].keys()

    def test_any_tool_that_reads_llama_reads_a_checkpoint(self, whole: Path) -> None:
        import transformers

        from secondpass.model.run import read_facts

        model = transformers.AutoModelForCausalLM.from_pretrained(whole / "checkpoint-12")
        assert type(model) is transformers.LlamaForCausalLM
        assert json.loads((whole / "checkpoint-12/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
        facts = read_facts(whole / "checkpoint-12")
        assert (facts.context_length, facts.layers, facts.takes_feedback) == (128, 2, False)

    def test_a_killed_training_ends_at_the_same_losses_and_weights(
        self, data: Path, whole: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        process = start(data, out)
        wait_for(lambda: any(it["step"] >= 7 for it in records(out)), process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert max(it["step"] for it in records(out)) < 12
        train(data, out, resume=True)
        sessions = json.loads((out / "run.json").read_text())["sessions"]
        assert sessions[-1]["from_step"] >= 3  # it did go on, not begin again
        assert_same_training(whole, out)

    def test_a_training_killed_before_its_first_checkpoint_begins_with_the_same_weights(
        self, data: Path, whole: Path, tmp_path: Path
    ) -> None:
        out, again = tmp_path / "out", tmp_path / "again"
        train(data, out, start_from=whole / "checkpoint-12")
        again.mkdir()
        shutil.copy(out / "run.json", again)  # all that there is before a checkpoint
        train(data, again, resume=True)
        assert_same_training(out, again)

    def test_a_checkpoint_that_was_cut_short_does_not_count(self, data: Path, whole: Path, tmp_path: Path) -> None:
        from secondpass.model.run import Run

        out = Path(shutil.copytree(whole, tmp_path / "out"))
        shutil.copytree(out / "checkpoint-12", out / "checkpoint-99")
        (out / "checkpoint-99" / "model.json").unlink()
        assert Run(out).steps == 12
        Run(out).go_back(12)
        assert not (out / "checkpoint-99").exists()
        with pytest.raises(ModelError, match=r"is not a checkpoint: it has no model\.json"):
            (out / "checkpoint-12" / "model.json").unlink()
            train(data, tmp_path / "other", start_from=out / "checkpoint-12")

    @pytest.mark.parametrize("words", [("fsdp=true",), ("fsdp=false",)], ids=["sharded", "copied"])
    def test_two_processes_train_what_one_trains(self, data: Path, whole: Path, tmp_path: Path, words) -> None:
        import transformers

        if words == ("fsdp=true",) and int(transformers.__version__.partition(".")[0]) < 5:
            pytest.skip("transformers 4 shards on GPUs alone")
        out = tmp_path / "out"
        command = (
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--master-port",
            "0",
            "--rdzv-backend",
            "c10d",
        )
        process = start(data, out, *words, launcher=(*command, "--rdzv-endpoint", "127.0.0.1:0"))
        assert process.wait(timeout=240) == 0, process.stderr
        (session,) = json.loads((out / "run.json").read_text())["sessions"]
        assert session["processes"] == 2
        # What is sharded has a state of its own; without it this would be a test of copies.
        assert (out / "checkpoint-12" / "pytorch_model_fsdp.bin").exists() == (words == ("fsdp=true",))
        assert_same_training(whole, out, tolerance=1e-5)

    def test_other_settings_are_named_when_a_training_is_resumed(self, data: Path, whole: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"was trained with peak_rate 0\.01, not 0\.02"):
            train(data, whole, "peak_rate=0.02", resume=True)
        other = learning.write_data(tmp_path / "data", count=30)
        with pytest.raises(ModelError, match="was trained with data 1"):
            train(other, whole, resume=True)

    def test_a_directory_in_use_is_not_overwritten(self, data: Path, whole: Path, tmp_path: Path) -> None:
        before = (whole / "run.json").read_bytes()
        with pytest.raises(ModelError, match="holds a training already; --resume goes on"):
            train(data, whole)
        assert (whole / "run.json").read_bytes() == before
        with pytest.raises(ModelError, match="holds no training to resume"):
            train(data, tmp_path / "nothing", resume=True)
        with pytest.raises(InputError, match="--from begins a training, --resume goes on"):
            train(data, whole, resume=True, start_from=whole / "checkpoint-12")

    def test_checkpoints_that_are_not_of_one_kind_have_no_mean(self, whole: Path, tmp_path: Path) -> None:
        narrow = learning.write_data(tmp_path / "data", size=500)
        train(narrow, tmp_path / "narrow", "steps=2")
        script = Path(__file__).parent.parent / "scripts" / "average_checkpoints.py"
        command = [sys.executable, script, whole / "checkpoint-12", tmp_path / "narrow" / "checkpoint-2"]
        run = subprocess.run([*command, "--out", tmp_path / "mean"], capture_output=True, text=True)
        assert (run.returncode, run.stdout) == (2, "")
        assert "narrow/checkpoint-2: has vocabulary 500, not 511; average checkpoints of one training" in run.stderr
        assert not (tmp_path / "mean").exists()

    def test_no_answers_are_compiled_where_none_are_asked_for(self, data: Path, labelled, tmp_path: Path) -> None:
        trained = train(data, tmp_path / "out", "steps=2", "measured_functions=0", corpus=labelled.corpus)
        assert "gain" not in trained.validation

    def test_one_process_trains_in_a_directory(self, data: Path, tmp_path: Path) -> None:
        from secondpass.files import lock

        with lock(tmp_path / "out" / "lock", ""), pytest.raises(InputError, match="another process is training there"):
            train(data, tmp_path / "out", "steps=2")
        train(data, tmp_path / "out", "steps=2")

    def test_a_training_begins_with_the_weights_of_another(self, data: Path, whole: Path, tmp_path: Path) -> None:
        trained = train(data, tmp_path / "out", "peak_rate=1e-9", "seed=3", start_from=whole / "checkpoint-12")
        assert weights(trained.last) == pytest.approx(weights(whole / "checkpoint-12"), abs=1e-6)
        assert json.loads((tmp_path / "out/run.json").read_text())["from"] == str(whole / "checkpoint-12")

    def test_weights_of_another_shape_or_tokenizer_are_refused(self, data: Path, whole: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="has layers 2, not 3; take its preset"):
            train(data, tmp_path / "out", "layers=3", start_from=whole / "checkpoint-12")
        other = learning.write_data(tmp_path / "data", size=500)
        with pytest.raises(ModelError, match="and the data have different tokenizers"):
            train(other, tmp_path / "out", start_from=whole / "checkpoint-12")
        with pytest.raises(ModelError, match="is not a checkpoint"):
            train(data, tmp_path / "out", start_from=tmp_path)
        assert not (tmp_path / "out").exists()

    def test_two_tasks_are_trained_together_and_validated_apart(self, data: Path, tmp_path: Path) -> None:
        from secondpass.model.run import read_facts

        feedback = learning.write_data(tmp_path / "feedback", task="feedback", form="long")
        trained = train(data, tmp_path / "out", "steps=2", more=(feedback,))
        assert {"optimize_answer_loss", "feedback_answer_loss", "feedback_right"} <= trained.validation.keys()
        assert all(isinstance(it, float) for it in trained.validation.values())
        assert "step" not in trained.validation
        facts = read_facts(trained.last)
        assert (facts.takes_feedback, facts.feedback_form) == (True, "long")
        short = learning.write_data(tmp_path / "short", task="feedback", form="short")
        with pytest.raises(ModelError, match="the data teaches long and short feedback; a model takes one form"):
            train(data, tmp_path / "out1", more=(feedback, short))
        other = learning.write_data(tmp_path / "other", size=500)
        with pytest.raises(ModelError, match=r"other and .*data have different tokenizers"):
            train(data, tmp_path / "out2", more=(other,))

    def test_examples_longer_than_the_context_are_refused(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(
            ModelError, match=r"an example of \d+ tokens, the model a context of 32; train with context="
        ):
            train(data, tmp_path / "out", "context=32")

    @pytest.mark.parametrize("where", ["loss", "gradient"])
    def test_a_training_that_diverges_stops_and_keeps_what_was_good(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        from secondpass.model.llama import LlamaForCausalLM, load
        from secondpass.model.run import Run

        forward, calls = LlamaForCausalLM.forward, []

        def diverging(self, *args, **inputs):
            found = forward(self, *args, **inputs)
            calls.extend([1] if self.training else [])
            if len(calls) == 9:  # of two passes a step, the first one of step 5
                if where == "loss":
                    found["loss"] = found["loss"] * float("nan")
                else:
                    self.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
            return found

        monkeypatch.setattr(LlamaForCausalLM, "forward", diverging)
        with pytest.raises(
            ModelError, match=r"step 5: the .* is nan at a learning rate of 0\.00.*lower peak_rate"
        ) as caught:
            train(data, tmp_path / "out")
        assert "checkpoint-4 is from before" in str(caught.value)
        (last,) = Run(tmp_path / "out").checkpoints()[-1:]
        assert all(bool(it.isfinite().all()) for it in load(last).parameters())

    def test_memory_that_runs_out_is_an_error_that_says_what_to_change(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        from secondpass.model.llama import LlamaForCausalLM

        monkeypatch.setattr(LlamaForCausalLM, "forward", lambda *_, **__: torch.empty(1 << 50))
        with pytest.raises(
            ModelError, match="out of memory with forward passes of 512 tokens; try device_tokens below 512"
        ):
            train(data, tmp_path / "out")

    def test_tensorboard_that_is_not_installed_is_named(self, data: Path, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("secondpass.model.train.find_spec", lambda name: None)
        with pytest.raises(ModelError, match="pip install tensorboard"):
            train(data, tmp_path / "out", "tensorboard=true")

    def test_the_command_line_trains_and_says_what_came_of_it(self, data: Path, tmp_path: Path, capsys) -> None:
        from secondpass.cli import main

        words = ("train", *learning.SMALL, "steps=2", "--data", data, "--out", tmp_path / "out", "--threads", 1)
        assert main(list(map(str, words))) == 0
        assert "checkpoint-2" in capsys.readouterr().out
        assert main(list(map(str, words))) == 2
        assert "holds a training already" in capsys.readouterr().err

    def test_progress_shows_steps_and_loss(self, data: Path, tmp_path: Path) -> None:
        shown: list[tuple[str, int, int]] = []
        train(data, tmp_path / "out", "steps=3", progress=lambda *it: shown.append(it))
        assert [it[1:] for it in shown] == [(1, 3), (2, 3), (3, 3)]
        assert shown[-1][0].startswith("training: loss ")

    def test_recomputed_activations_change_nothing(self, data: Path, whole: Path, tmp_path: Path) -> None:
        train(data, tmp_path / "out", "recompute=true")
        assert_same_training(whole, tmp_path / "out")

    def test_greedy_answers_are_compiled_in_a_validation(self, labelled, tmp_path: Path) -> None:
        from secondpass.model.commands import OptimizeRequest, make_optimize

        data = tmp_path / "data"
        make_optimize(
            OptimizeRequest(corpus=labelled.corpus, labels=(labelled.labels,), out=data, vocabulary=500, context=9_999)
        )
        words = ("context=9999", "device_tokens=32768", "step_tokens=32768", "steps=2", "measured_functions=4")
        trained = train(data, tmp_path / "out", *words, corpus=labelled.corpus)
        assert trained.validation["gain"] >= 0
        assert 0 < trained.validation["valid"] <= 1  # the grammar writes lists only
        assert {"source_right", "target_right"} <= trained.validation.keys()

    def test_a_checkpoint_is_exported(self, whole: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnx", reason="needs secondpass[train]")
        from secondpass.engines.onnx import OnnxEngine
        from secondpass.model.export import export_checkpoint
        from secondpass.prompt import OptimizePrompt

        export_checkpoint(whole / "checkpoint-12", tmp_path, name="exported")
        engine = OnnxEngine.load(tmp_path, threads=1)
        assert (engine.name, engine.context_length, engine.takes_feedback) == ("exported", 128, False)
        assert engine.start(OptimizePrompt(learning.ir(0))).answer()

    def test_an_export_says_which_feedback_was_trained(self, data: Path, tmp_path: Path) -> None:
        pytest.importorskip("onnx", reason="needs secondpass[train]")
        from secondpass.model.export import export_checkpoint
        from secondpass.model.manifest import Manifest

        feedback = learning.write_data(tmp_path / "feedback", task="feedback", form="short")
        trained = train(data, tmp_path / "out", "steps=2", more=(feedback,))
        export_checkpoint(trained.last, tmp_path / "exported")
        found = Manifest.read(tmp_path / "exported")
        assert (found.takes_feedback, found.feedback_form) == (True, "short")

    def test_the_papers_model_is_counted_without_being_made(self) -> None:
        from secondpass.model.dry_run import dry_run

        one, many = dry_run(preset("paper-7b"), 8), dry_run(preset("paper-7b"), 64)
        assert one.parameters == 6_738_415_616
        assert (one.accumulation, many.accumulation, one.step_tokens) == (32, 4, 1_048_576)
        assert one.weights + one.gradients + one.optimiser == pytest.approx(16 * one.parameters / 8, rel=1e-6)
        assert many.weights * 8 == pytest.approx(one.weights, rel=1e-6)
        assert 10 < one.memory / 2**30 < 40  # fits a GPU of 40 GiB
        assert dry_run(override(preset("paper-7b"), ["fsdp=false"]), 8).memory / 2**30 > 100
        with pytest.raises(ModelError, match="256 forward passes"):
            dry_run(preset("paper-7b"), 7)

    @pytest.mark.parametrize("heads", [1, 2, 4])
    def test_counted_activations_are_those_that_are_kept(self, heads: int) -> None:
        import torch

        from secondpass.model import dry_run, llama

        shape = Shape(vocabulary=300, width=64, layers=2, heads=4, key_value_heads=heads, feed_forward=176)
        model = llama.initial(shape, end=None, seed=0)
        kept = dry_run.saved_bytes(model, 2, 128, 60, "cpu")
        assert dry_run.kept_bytes(shape, 2, 128, 60, torch.float32) == kept
        with torch.autocast("cpu", torch.bfloat16):
            mixed = dry_run.saved_bytes(model, 2, 128, 60, "cpu")
        assert dry_run._kept(shape, 2, 128, 60, True, False) == pytest.approx(mixed, rel=0.2)


def train(data: Path, out: Path, *words: str, more=(), progress=None, **options):
    from secondpass.model import train as training

    request = training.TrainRequest(
        data=(data, *more), out=out, overrides=(*learning.SMALL, *words), threads=1, **options
    )
    return training.train(request, progress)


def start(data: Path, out: Path, *words: str, launcher=()) -> subprocess.Popen:
    """The same in a process of its own."""
    script = Path(__file__).with_name("learning.py")
    command = [sys.executable, *launcher, script, data, out, *words]
    return subprocess.Popen(list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def records(out: Path) -> list[dict]:
    from secondpass.model.run import Run

    return Run(out).records()


def weights(checkpoint: Path):
    import numpy as np
    from safetensors.numpy import load_file

    found = load_file(checkpoint / "model.safetensors")
    return np.concatenate([found[name].ravel() for name in sorted(found)])


def assert_same_training(one: Path, other: Path, tolerance: float = 0.0) -> None:
    """The same losses at every step, and the same weights at the end."""
    names = ("step", "epoch", "loss", "answer_loss", "prompt_loss", "right", "rate", "tokens", "optimize_right")
    for first, second in zip(records(one), records(other), strict=True):
        assert first["kind"] == second["kind"]
        found, expected = ([it[name] for name in names if name in it] for it in (first, second))
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), first
    ours, theirs = weights(one / "checkpoint-12"), weights(other / "checkpoint-12")
    assert ours == pytest.approx(theirs, rel=0, abs=tolerance)
