"""Benchmarks run, on a model of seconds; what they measure is the machine's business."""

from __future__ import annotations

import subprocess
import sys

import pytest
from compiling import ROOT

pytest.importorskip("torch", reason="checkpoints need secondpass[train]")
pytest.importorskip("pyarrow", reason="needs secondpass[corpus]")

from secondpass.corpus.store import Corpus
from secondpass.model import llama
from secondpass.model.manifest import TOKENIZER, Manifest
from secondpass.model.presets import Shape
from secondpass.model.run import complete
from secondpass.model.tokenizer import Tokenizer
from secondpass.prompt import END


@pytest.fixture
def checkpoint(labelled, tmp_path):
    """Random weights, with a tokenizer for the corpus and a context that Long Feedback fits."""
    corpus, out = Corpus(labelled.corpus), tmp_path / "checkpoint-1"
    tokenizer = Tokenizer.train([corpus.text(entry.hash) for entry in corpus.select()], 900)
    shape = Shape(
        vocabulary=tokenizer.size, context=1024, width=64, layers=2, heads=4, key_value_heads=2, feed_forward=96
    )
    llama.initial(shape, end=tokenizer.id_of(END), seed=1).save_pretrained(out)
    tokenizer.save(tmp_path / TOKENIZER)
    facts = Manifest(
        name="random", context_length=1024, layers=2, key_value_heads=2, head_width=16, takes_feedback=True
    )
    complete(out, facts, tmp_path / TOKENIZER)
    return out


@pytest.mark.slow
def test_strategies_are_timed_and_a_feedback_turn_reads_just_its_own_tokens(labelled, checkpoint):
    options = "--split", "test", "--functions", "2", "--rounds", "1", "--answers", "1", "2"
    command = [sys.executable, ROOT / "benchmarks" / "strategies.py", "--checkpoint", checkpoint]
    run = subprocess.run([*command, "--corpus", labelled.corpus, *options], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for row in ("1 | transformers", "2 | onnx float32", "2 | onnx int8", "Fast", "Long, second list"):
        assert run.stdout.count(f"| {row} |") >= 2  # by wall and by processor time
    assert run.stdout.count("| 2 of 2 |") == 2
