"""What a training ran on: hardware, threads, versions and time, for its directory's record."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from secondpass import __version__
from secondpass.model.run import Run

_PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "numpy")


class Session:
    """One process's, or one `torchrun`'s, work on a training."""

    def __init__(self, run: Run, step: int) -> None:
        """Begin at a step."""
        self._run, self._began = run, time.monotonic()
        self._facts: dict[str, Any] = {
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "from_step": step,
            **machine(),
        }

    def note(self, step: int) -> None:
        """Write down that this step's checkpoint is complete."""
        seconds = round(time.monotonic() - self._began, 1)
        self._run.note_session({**self._facts, "to_step": step, "seconds": seconds})


def machine() -> dict[str, Any]:
    """The machine this process runs on, and what it runs."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus,
        "system": platform.platform(),
        "versions": {
            "secondpass": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
    }


def _processor() -> str:
    """Its name, as Linux has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
