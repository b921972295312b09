"""An exported model as a checkpoint, to be run by transformers or trained further.

    python scripts/unpack_model.py --out build/shipped/checkpoint-0

Its weights are the exported ones, which were rounded to 7 bits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from secondpass.errors import run_script
from secondpass.model.manifest import SHIPPED
from secondpass.model.unpack import unpack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED, help="the one in the box where none is named")
    parser.add_argument("--out", type=Path, required=True, metavar="CHECKPOINT")
    options = parser.parse_args()
    print(f"{options.out}: {unpack(options.model, options.out).parameters:,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
