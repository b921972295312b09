"""Stage 4: the tokenizer, learnt from the functions that are trained on.

    python scripts/train_tokenizer.py --functions build/functions.jsonl --out build/tokenizer.json

Prints how many tokens the functions of each split take. Seconds to minutes on one core.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from secondpass.errors import SecondpassError
from secondpass.model.data import read_ir
from secondpass.model.tokenizer import VOCABULARY_SIZE, Tokenizer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--functions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=VOCABULARY_SIZE, help="tokens in all (%(default)s)")
    options = parser.parse_args()
    try:
        tokenizer = Tokenizer.train(read_ir(options.functions, "train"), options.size)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(options.out)
        print(f"{options.out}: {tokenizer.size} tokens")
        for split in ("train", "valid", "test"):
            report(tokenizer, split, list(read_ir(options.functions, split)))
    except SecondpassError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def report(tokenizer: Tokenizer, split: str, functions: list[str]) -> None:
    """Print the lengths of a split's functions, and stop at one that does not come back exactly."""
    lengths = []
    for text in functions:
        ids = tokenizer.encode_ir(text)
        if tokenizer.decode(ids) != text:
            raise SecondpassError(f"the tokenizer does not give this function back exactly:\n{text}")
        lengths.append(len(ids))
    if lengths:
        fits = sum(length <= 1000 for length in lengths) / len(lengths)
        print(
            f"{split}: {len(lengths)} functions, median {statistics.median(lengths):.0f} tokens, "
            f"mean {statistics.mean(lengths):.0f}, {fits:.1%} with at most 1000"
        )


if __name__ == "__main__":
    sys.exit(main())
