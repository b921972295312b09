"""A model's directory: three files, and the versions that say what they fit.

    model.onnx      the network (`model.export` says what goes in and out)
    tokenizer.json  the tokenizer
    model.json      this module's `Manifest`

The exporter writes it, engines read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, cast

from secondpass.errors import ModelError
from secondpass.files import digest
from secondpass.ir import NORMAL_FORM_VERSION
from secondpass.llvm.vocabulary import VOCABULARY, VOCABULARY_VERSION
from secondpass.prompt import FORMAT_VERSION as PROMPT_FORMAT_VERSION
from secondpass.prompt import Form

FORMAT_VERSION = 2
"""Of the directory and of the network's inputs and outputs."""

NETWORK, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "model.json"

SHIPPED = Path(__file__).parent / "shipped"
"""The model that comes with the package."""


def identity(directory: Path) -> dict[str, str]:
    """Digests of the files that decide what a model answers, by name: an exported model's, or a checkpoint's."""
    network = [NETWORK]
    if not (directory / NETWORK).exists():
        network = ["config.json", *sorted(it.name for it in directory.glob("*.safetensors"))]
    return {name: digest(directory / name) for name in (*network, TOKENIZER, MANIFEST)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a reader of the directory must know, and check, before it uses the network."""

    name: str
    """What to call the model in reports."""
    context_length: int
    """Tokens of prompt, answers and feedback together, at most."""
    layers: int
    """Decoder layers."""
    key_value_heads: int
    """Key and value heads of a layer."""
    head_width: int
    """Elements of a head."""
    takes_feedback: bool
    """Whether it was trained to answer again after a feedback."""
    feedback_form: Form = Form.FAST
    """The form of feedback that it was trained on, where it was."""
    writes_code: bool = False
    """Whether it was trained to write code after the counts, where it is asked for."""
    temperature: float = 1.0
    """At which its samples are best, as far as was measured."""
    words: tuple[str, ...] = tuple(entry.text for entry in VOCABULARY)
    """The elements a list may hold."""
    format_version: int = FORMAT_VERSION
    """`FORMAT_VERSION` of the writer."""
    prompt_version: int = PROMPT_FORMAT_VERSION
    """`prompt.FORMAT_VERSION` the model was trained with."""
    normal_form_version: int = NORMAL_FORM_VERSION
    """`ir.NORMAL_FORM_VERSION` the model was trained with."""
    vocabulary_version: int = VOCABULARY_VERSION
    """`llvm.vocabulary.VOCABULARY_VERSION` the model was trained with."""

    def write(self, directory: Path) -> None:
        """Write `model.json`."""
        (directory / MANIFEST).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """The manifest with these values, as JSON has them.

        Raises:
            TypeError, KeyError, ValueError: they are those of no manifest.
        """
        form = Form(values.get("feedback_form", Form.FAST))
        typed: dict[str, Any] = {**values, "words": tuple(values["words"]), "feedback_form": form}
        return cls(**typed)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read `model.json` and check the directory.

        Raises:
            ModelError: a file is missing or unreadable, or was made for another version.
        """
        for name in (MANIFEST, NETWORK, TOKENIZER):
            if not (directory / name).is_file():
                raise ModelError(f"{directory} is not a model: it has no {name}; name a directory the export wrote")
        path = directory / MANIFEST
        try:
            values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
            _check_versions(path, values)
            return cls.of(values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{path} is damaged ({error}); export the model again") from error


_EXPECTED = {
    "format_version": FORMAT_VERSION,
    "prompt_version": PROMPT_FORMAT_VERSION,
    "normal_form_version": NORMAL_FORM_VERSION,
    "vocabulary_version": VOCABULARY_VERSION,
}


def _check_versions(path: Path, values: dict[str, Any]) -> None:
    for name, expected in _EXPECTED.items():
        found = values.get(name)
        if found != expected:
            raise ModelError(
                f"{path} has {name} {found}, this secondpass needs {expected}; "
                "take the model that belongs to this release, or train and export it again"
            )
