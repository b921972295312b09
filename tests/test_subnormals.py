"""Subnormal numbers are zero inside, and as before outside."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from secondpass.engines.subnormals import subnormals_are_zero

SMALLEST = np.float32(1e-38)
"""A tenth of it is subnormal."""


def tenth() -> float:
    return float(SMALLEST * np.float32(0.1))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the mode is set on x86-64 alone")
def test_subnormals_are_zero_inside_alone() -> None:
    assert tenth() > 0
    with subnormals_are_zero():
        assert tenth() == 0
        with subnormals_are_zero():
            assert tenth() == 0
        assert tenth() == 0
    assert tenth() > 0


def test_an_error_inside_leaves_nothing_behind() -> None:
    with pytest.raises(KeyError), subnormals_are_zero():
        raise KeyError
    assert tenth() > 0


def test_a_process_that_runs_a_model_computes_as_before() -> None:
    script = """
import numpy as np
from secondpass.engines.onnx import OnnxEngine
from secondpass.prompt import OptimizePrompt
engine = OnnxEngine.load()
engine.start(OptimizePrompt("define i32 @f() {\\n  ret i32 0\\n}\\n")).answer()
assert np.float32(1e-38) * np.float32(0.1) > 0
"""
    subprocess.run([sys.executable, "-c", script], check=True)
