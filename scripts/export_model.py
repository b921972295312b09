"""Stage 6: the trained model as the engine reads it.

    python scripts/export_model.py --checkpoint build/model/best.pt --name secondpass-small \
        --out src/secondpass/model/shipped

The tokenizer is the one beside the checkpoint where no other is named. Writes `model.onnx`,
`tokenizer.json` and `model.json`; a directory it has written before is overwritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secondpass.errors import SecondpassError
from secondpass.model.export import export
from secondpass.model.manifest import NETWORK, TOKENIZER
from secondpass.model.tokenizer import Tokenizer
from secondpass.model.train import load_checkpoint


def main() -> int:
    options = arguments()
    try:
        model = load_checkpoint(options.checkpoint)
        tokenizer = Tokenizer.load(options.tokenizer or options.checkpoint.with_name(TOKENIZER))
        export(model, tokenizer, options.out, name=options.name, takes_feedback=not options.no_feedback)
    except SecondpassError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    size = (options.out / NETWORK).stat().st_size
    print(f"{options.out}: {model.shape.parameters:,} parameters, {size / 1e6:.1f} MB")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--name", required=True, help="what reports call the model")
    parser.add_argument("--no-feedback", action="store_true", help="it was not trained to answer after a feedback")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
