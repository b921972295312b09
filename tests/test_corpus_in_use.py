"""What is promised of the corpus in use, checked on the corpus itself.

SECONDPASS_CORPUS=build/corpus pytest -m slow tests/test_corpus_in_use.py
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from secondpass import ir

pytest.importorskip("pyarrow", reason="a corpus needs pyarrow: pip install secondpass[corpus]")

from secondpass import parquet
from secondpass.corpus import SPLITS
from secondpass.corpus.store import Corpus

FOLDER = os.environ.get("SECONDPASS_CORPUS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="SECONDPASS_CORPUS names no corpus; build one from data/corpus.txt"),
]


@pytest.fixture(scope="module")
def corpus():
    return Corpus(Path(FOLDER))


def shards():
    return sorted((Path(FOLDER) / "functions").glob("*.parquet"))


def test_no_near_duplicate_group_spans_two_splits(corpus):
    """Groups are computed anew from the texts, of the functions that count and of those that do not."""
    entries = corpus.entries
    split_of_group = {it.group: it.split for it in entries.values()}
    spans, seen = [], set()
    for path in shards():
        table = parquet.read(path, "make it anew", ["hash", "group", "text"])
        for key, group, text in zip(*(table[name].to_pylist() for name in ("hash", "group", "text"))):
            assert ir.group(text) == group, f"{path.stem}: {key} is of another group than the shard says"
            assert group in split_of_group, f"{path.stem}: nobody of {key}'s group is in the index"
            if key in entries:
                seen.add(key)
                if entries[key].split != split_of_group[group]:
                    spans.append(key)
    assert not spans
    assert seen == set(entries)


def test_a_project_that_trains_tests_nothing(corpus):
    splits = {}
    for entry in corpus.entries.values():
        splits.setdefault(entry.project, set()).add(entry.split)
    assert all(len(it) == 1 for it in splits.values())


def test_it_is_as_large_as_promised(corpus):
    entries = corpus.entries.values()
    languages = Counter(it.language for it in entries)
    assert len(entries) >= 100_000
    assert languages["c++"] >= len(entries) / 5
    assert len({it.project for it in entries}) >= 150
    assert {it.split for it in entries} == set(SPLITS)


def test_the_test_split_is_wide_enough(corpus):
    held_out = corpus.select("test")
    assert len(held_out) >= 3_000
    assert len({it.project for it in held_out}) >= 15
    assert {it.language for it in held_out} == {"c", "c++"}
