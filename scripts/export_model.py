"""Stage 5: the trained model as the engine reads it.

    python scripts/export_model.py build/model/checkpoint-2000 --name secondpass-tiny --out src/secondpass/model/shipped

Writes `model.onnx`, `tokenizer.json` and `model.json`; a directory it has written before is overwritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secondpass.errors import run_script
from secondpass.model.export import export_checkpoint
from secondpass.model.manifest import NETWORK


def main() -> int:
    options = arguments()
    shape = export_checkpoint(options.checkpoint, options.out, name=options.name)
    size = (options.out / NETWORK).stat().st_size
    print(f"{options.out}: {shape.parameters:,} parameters, {size / 1e6:.1f} MB")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a checkpoint-N of a training")
    parser.add_argument("--name", help="what reports call the model (default: as in the training)")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run_script(main))
