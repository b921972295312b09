"""The portfolio that ships: what the coreset's lists do for a sample of training functions.

    secondpass data outcomes build/corpus --out build/outcomes.parquet
    python scripts/learn_portfolio.py --corpus build/corpus --outcomes build/outcomes.parquet

Writes `src/secondpass/tuner/knowledge_data/OBJECTIVE-portfolio.npz` (`tuner.portfolio`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from secondpass.corpus.store import Corpus
from secondpass.errors import CorpusError, run_script
from secondpass.prompt import Objective
from secondpass.tuner import portfolio
from secondpass.tuner.outcomes import read_outcomes

TARGET = Path(__file__).parent.parent / "src" / "secondpass" / "tuner" / "knowledge_data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--objective", choices=list(Objective), type=Objective, default=Objective.INSTRUCTIONS)
    parser.add_argument("--functions", type=int, default=2_000, help="functions to keep (default 2,000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = read_outcomes(options.outcomes, options.objective)
    keys = [it.hash for it in Corpus(options.corpus).select("train") if it.hash in outcomes.values]
    if not any((outcomes.values[key] > 0).any() for key in keys):
        raise CorpusError(f"{options.outcomes}: says nothing of the training functions of {options.corpus}")
    values = np.array([outcomes.values[key] for key in keys])
    found = portfolio.sampled(
        outcomes.lists, [outcomes.oz[key] for key in keys], values, options.functions, options.seed
    )
    path = TARGET / f"{options.objective}-portfolio.npz"
    portfolio.write(path, found)
    print(f"{path.name}: {len(found.weights):,} of {len(keys):,} training functions, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
