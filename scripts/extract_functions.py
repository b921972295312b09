"""Stage 2: every function of the corpus on its own, normalised, deduplicated, split by project.

    python scripts/extract_functions.py --corpus build/corpus --out build

Writes `functions.jsonl` (a function a line: hash, project, split, file, name, ir, source, oz; counts are
instructions unoptimised and at -Oz) and `functions.zip` (its bitcode, by hash). A function of several projects
belongs to the first in the order test, valid, train, so that nothing held out is ever trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from secondpass import ir
from secondpass.errors import LLVMError
from secondpass.llvm.jobs import Job
from secondpass.llvm.library import load
from secondpass.llvm.module import Module
from secondpass.llvm.sandbox import Sandbox

TEST = {"zlib", "lua5.4", "jansson", "less", "cjson"}
VALID = {"sed", "lz4"}
FEWEST, MOST = 8, 300
"""Instructions of a function that is kept: shorter ones leave nothing to do, longer ones do not fit the model."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    records, modules = {}, {}
    for record, bitcode in functions(options.corpus):
        if record["hash"] not in records:
            records[record["hash"]], modules[record["hash"]] = record, bitcode
    add_baseline(records, modules)
    lines, archive = options.out / "functions.jsonl.tmp", options.out / "functions.zip.tmp"
    with lines.open("w") as sink, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as modules_out:
        for key, record in records.items():
            if "oz" in record:
                sink.write(json.dumps(record) + "\n")
                modules_out.writestr(key, modules[key])
    for made in (archive, lines):  # whoever reads the old ones goes on reading them
        made.replace(made.with_suffix(""))
    print(Counter(record["split"] for record in records.values()))
    print(Counter(record["project"] for record in records.values()).most_common())
    return 0


def split_of(project: str) -> str:
    return "test" if project in TEST else "valid" if project in VALID else "train"


def functions(corpus: Path) -> Iterator[tuple[dict, bytes]]:
    """Each function of usable size, held-out projects first."""
    order = ["test", "valid", "train"]
    projects = sorted(it.parent for it in corpus.glob("*/units.json"))
    for folder in sorted(projects, key=lambda it: order.index(split_of(it.name))):
        for unit in json.loads((folder / "units.json").read_text()):
            if unit["error"] is not None:
                continue
            with Module.parse((folder / unit["bitcode"]).read_bytes(), unit["file"]) as module:
                yield from functions_of(module, folder.name, unit["file"])


def functions_of(module: Module, project: str, file: str) -> Iterator[tuple[dict, bytes]]:
    try:
        for name, part in module.split():
            with part:
                count = part.instruction_count
                if not FEWEST <= count <= MOST:
                    continue
                text = ir.normalise(part.to_text())
                record = {"hash": ir.digest(text), "project": project, "split": split_of(project)}
                yield record | {"file": file, "name": name, "ir": text, "source": count}, part.to_bitcode()
    except LLVMError as error:
        print(f"{project} {file}: {error}", file=sys.stderr)


def add_baseline(records: dict[str, dict], modules: dict[str, bytes]) -> None:
    jobs = (Job(bitcode, (load().oz_pipeline,), key) for key, bitcode in modules.items())
    with Sandbox() as sandbox:
        for job, (outcome,) in sandbox.run(jobs):
            if outcome.ok:
                records[job.name]["oz"] = outcome.instructions


if __name__ == "__main__":
    sys.exit(main())
