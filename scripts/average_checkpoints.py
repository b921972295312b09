"""The mean of several checkpoints' weights: one model that is often a little better than each of them.

    python scripts/average_checkpoints.py build/a/checkpoint-228 build/b/checkpoint-185 --out build/mean

The checkpoints must be of one shape, and of one course of training, or their mean is no model. Tokenizer and facts are
the first one's.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from secondpass.errors import ModelError, run_script
from secondpass.model import llama
from secondpass.model.dataset import digest
from secondpass.model.manifest import MANIFEST, TOKENIZER
from secondpass.model.run import read_facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    average(options.checkpoints, options.out)
    return 0


def average(checkpoints: list[Path], out: Path) -> None:
    for it in checkpoints:
        read_facts(it)
    first, *others = (llama.load(it) for it in checkpoints)
    for path, it in zip(checkpoints[1:], others):
        what = llama.difference(llama.shape_of(it.config), llama.shape_of(first.config))
        if what is None and digest(path / TOKENIZER) != digest(checkpoints[0] / TOKENIZER):
            what = f"another tokenizer than {checkpoints[0]}"
        if what:
            raise ModelError(f"{path}: has {what}; average checkpoints of one training")
    mean: Any = first
    with torch.no_grad():
        for parameters in zip(mean.parameters(), *(it.parameters() for it in others), strict=True):
            parameters[0].copy_(torch.stack(parameters).mean(dim=0))
    out.mkdir(parents=True, exist_ok=True)
    mean.save_pretrained(out)
    for name in (MANIFEST, TOKENIZER):
        shutil.copyfile(checkpoints[0] / name, out / name)


if __name__ == "__main__":
    sys.exit(run_script(main))
