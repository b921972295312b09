"""Who writes the answers.

`base` is what an engine offers. `grammar` and `sampling` serve every engine that decodes itself; `onnx`,
with `onnx_network` below it, is the engine in the box, `transformers` reads checkpoints. Engines know prompts and
token ids; they know nothing of LLVM.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secondpass.model.manifest import NETWORK


def load_engine(directory: Path, *, words: Iterable[str] | None = None, threads: int | None = None) -> Any:
    """The engine for a model's directory: one that was exported, or a checkpoint of a training.

    Args:
        directory: the model's.
        words: the elements a list may hold; None for all the model knows.
        threads: of one step; None for as many as the runtime takes.

    Raises:
        ModelError: it is neither, or is of another version.
    """
    if (directory / NETWORK).exists():
        from secondpass.engines.onnx import OnnxEngine

        return OnnxEngine.load(directory, words=words, threads=threads)
    from secondpass.engines.transformers import TransformersEngine

    return TransformersEngine.load(directory, words=words, threads=threads)
