"""Where functions come from: real programs, as unoptimised IR, deduplicated and split by project.

    sources (debian, compdb, files, csmith) -> units -> extraction -> store (shards, index) -> statistics

A source turns a project into translation units of bitcode on disk; everything after that is the same
for all sources. Nothing here knows of models or of the tuner.
"""

from typing import Literal

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
