"""A training's directory: what it was told, how far it came, and its checkpoints.

    OUT/run.json        every setting, and the sessions it was trained in: machine, versions, time
    OUT/log.jsonl       a line a record
    OUT/checkpoint-N/   after N steps: a model of `transformers`, optimiser, `tokenizer.json`, and at last `model.json`

A checkpoint without `model.json` was cut short while it was written, and does not count. The module knows files; it
knows nothing of torch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from secondpass.errors import ModelError
from secondpass.files import write_json
from secondpass.model.manifest import MANIFEST, TOKENIZER, Manifest

RUN, LOG, LOCK = "run.json", "log.jsonl", "lock"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint after so many steps."""
    return f"checkpoint-{step}"


def read_facts(checkpoint: Path) -> Manifest:
    """What a reader of a checkpoint must know.

    Raises:
        ModelError: it is no complete checkpoint, or was made for another version.
    """
    for name in (MANIFEST, TOKENIZER):
        if not (checkpoint / name).is_file():
            raise ModelError(f"{checkpoint} is not a checkpoint: it has no {name}; name a checkpoint-N of a training")
    path = checkpoint / MANIFEST
    try:
        values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        facts = Manifest.of(values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({error}); take another checkpoint") from error
    for it in fields(Manifest):
        of_text = it.name.endswith("_version") and it.name != "format_version"  # that one is the exported network's
        if of_text and getattr(facts, it.name) != it.default:
            raise ModelError(
                f"{path} has {it.name} {getattr(facts, it.name)}, this secondpass needs {it.default}; train it again"
            )
    return facts


def complete(checkpoint: Path, facts: Manifest, tokenizer: Path) -> None:
    """Write beside a checkpoint's weights what its readers must know. From then on it counts."""
    shutil.copyfile(tokenizer, checkpoint / TOKENIZER)
    with TemporaryDirectory(dir=checkpoint) as temporary:
        facts.write(Path(temporary))
        (Path(temporary) / MANIFEST).replace(checkpoint / MANIFEST)


class Run:
    """The directory of one training."""

    def __init__(self, out: Path) -> None:
        """Name the directory; nothing is read or written."""
        self.out = out

    @property
    def steps(self) -> int:
        """Steps that are done, at the last complete checkpoint; 0 where there is none."""
        found = self.checkpoints()
        return int(found[-1].name.rpartition("-")[2]) if found else 0

    def check_new(self) -> None:
        """Check that no training is here.

        Raises:
            ModelError: there is one.
        """
        if (self.out / RUN).exists() or self.checkpoints():
            raise ModelError(f"{self.out} holds a training already; --resume goes on with it, or name another --out")

    def begin(self, settings: Mapping[str, Any], start_from: Path | None) -> None:
        """Begin a training.

        Args:
            settings: all that decides what it does, as JSON has it.
            start_from: where its first weights come from; None for random ones.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        self._write({"settings": settings, "from": start_from and str(start_from), "sessions": []})

    def check(self, settings: Mapping[str, Any]) -> None:
        """Check that the training that is here was told the same.

        Raises:
            ModelError: there is none, or a setting differs.
        """
        before: dict[str, Any] = self._read()["settings"]
        for name in {**before, **settings}:
            if before.get(name) != settings.get(name):
                raise ModelError(
                    f"{self.out} was trained with {name} {_shown(before.get(name))}, not {_shown(settings.get(name))}; "
                    "resume with the same settings, or begin another training with --from"
                )

    @property
    def start_from(self) -> Path | None:
        """The checkpoint that the training that is here began with; None for random weights."""
        named = self._read()["from"]
        return Path(named) if named else None

    def note_session(self, facts: Mapping[str, Any]) -> None:
        """Add a session, or say more of the last one when it has the same `started`."""
        document = self._read()
        sessions: list[dict[str, Any]] = document["sessions"]
        if sessions and sessions[-1]["started"] == facts["started"]:
            sessions.pop()
        self._write(document | {"sessions": [*sessions, dict(facts)]})

    def log(self, record: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(dict(record)) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of the log; a last one that was cut short does not count."""
        path = self.out / LOG
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def go_back(self, step: int) -> None:
        """Drop what was logged after a step, and checkpoints that were cut short."""
        kept = [json.dumps(it) + "\n" for it in self.records() if it["step"] <= step]
        temporary = self.out / f"{LOG}.tmp"
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(self.out / LOG)
        for path in self._directories().values():
            if not (path / MANIFEST).is_file():
                shutil.rmtree(path)

    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, the oldest first."""
        return [path for _, path in sorted(self._directories().items()) if (path / MANIFEST).is_file()]

    def keep(self, wanted: Iterable[Path]) -> None:
        """Delete all checkpoints but these."""
        kept = set(wanted)
        for path in self.checkpoints():
            if path not in kept:
                (path / MANIFEST).unlink()  # first: half a checkpoint must not count
                shutil.rmtree(path)

    def _directories(self) -> dict[int, Path]:
        """The checkpoints by their steps, complete or not."""
        names = ((path, _CHECKPOINT.fullmatch(path.name)) for path in self.out.glob("*"))
        return {int(match[1]): path for path, match in names if match}

    def _read(self) -> dict[str, Any]:
        path = self.out / RUN
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError(f"{self.out} holds no training to resume (no {RUN}); begin one without --resume") from None
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} is damaged ({error}); begin another training with --from") from error

    def _write(self, document: Mapping[str, Any]) -> None:
        write_json(self.out / RUN, document)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
