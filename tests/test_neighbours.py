"""Whose winners a search prefers, on tables small enough to see why, and on the table that ships."""

from __future__ import annotations

import gzip
from importlib import resources
from types import SimpleNamespace

import pytest

from secondpass.llvm.vocabulary import VOCABULARY
from secondpass.prompt import Objective
from secondpass.tuner import neighbours
from secondpass.tuner.coreset import coreset
from secondpass.tuner.neighbours import Neighbours, neighbour, shape, shipped, write
from secondpass.tuner.search import KNOWN

A, B = ("sroa",), ("mem2reg", "gvn")
FIRST, SECOND, THIRD = ("sroa", "gvn"), ("sroa", "dse"), ("sroa", "adce")
TABLE = Neighbours(
    (A, B),
    (
        neighbour(20, [18, 20], 18, {FIRST: 17}),  # the first probe helps
        neighbour(20, [20, 18], 18, {SECOND: 14, THIRD: 16}),  # the second does
    ),
)


@pytest.mark.parametrize(
    ("oz", "values", "bits"),
    [
        (10, [9, 10, 12], 0b000_101_111),
        (10, [11, 9, 9], 0b111_000_000),
        (10, [10, 10], 0b100_100),
    ],
)
def test_a_shape_says_which_probes_help_and_which_is_best(oz, values, bits):
    assert shape(oz, values) == bits


def test_the_winners_of_the_function_that_is_most_like_this_one_weigh_most():
    near = TABLE.winners_for(20, [17, 20])
    assert max(near, key=lambda it: near[it]) == FIRST
    near = TABLE.winners_for(20, [20, 17])
    assert max(near, key=lambda it: near[it]) == SECOND
    assert near[THIRD] == pytest.approx(near[SECOND] / 2, rel=0.01)


def test_of_functions_alike_the_winners_of_the_one_of_like_size_weigh_most():
    alike = (neighbour(20, [18, 20], 18, {FIRST: 17}), neighbour(400, [380, 400], 380, {SECOND: 377}))
    table = Neighbours((A, B), alike)
    small, large = table.winners_for(25, [23, 25]), table.winners_for(300, [290, 300])
    assert small[FIRST] > small[SECOND]
    assert large[SECOND] > large[FIRST]


def test_only_the_nearest_functions_count(monkeypatch):
    monkeypatch.setattr(neighbours, "_NEAREST", 1)
    assert set(TABLE.winners_for(20, [17, 20])) == {FIRST}


def test_what_ships_is_of_lists_that_every_search_begins_with(tmp_path):
    found = shipped(Objective.INSTRUCTIONS)
    assert found is not None
    first = [it.words for it in coreset(Objective.INSTRUCTIONS, KNOWN)]
    assert list(found.probes) == first[: len(found.probes)]
    assert len(found.functions) > 5_000
    for it in found.functions:
        assert 0 < it.shape < 1 << 3 * len(found.probes)
        assert not set(first).intersection(it.winners)
        assert 0 < min(it.winners.values()) <= max(it.winners.values()) == 1
    assert {word for it in found.functions for words in it.winners for word in words} <= {it.text for it in VOCABULARY}
    path = tmp_path / "again.json.gz"
    write(path, found)
    data = resources.files("secondpass.tuner").joinpath("knowledge_data", "instructions-neighbours.json.gz")
    assert gzip.decompress(path.read_bytes()) == gzip.decompress(data.read_bytes())


def test_winners_with_a_pass_that_the_llvm_in_force_lacks_are_left_out(monkeypatch):
    whole = shipped(Objective.INSTRUCTIONS)
    of_probes = {word for words in whole.probes for word in words}
    lacking = next(word for it in whole.functions for words in it.winners for word in words if word not in of_probes)
    known = [it.text for it in VOCABULARY if it.text != lacking]
    monkeypatch.setattr(neighbours, "load", lambda: SimpleNamespace(words=known))
    left = shipped.__wrapped__(Objective.INSTRUCTIONS)
    assert not any(lacking in words for it in left.functions for words in it.winners)
    known.clear()
    assert shipped.__wrapped__(Objective.INSTRUCTIONS) is None


def test_no_table_ships_for_bytes():
    assert shipped(Objective.BYTES) is None
