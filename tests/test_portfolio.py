"""Which lists a portfolio chooses, on tables small enough to see why."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secondpass.prompt import Objective
from secondpass.tuner.coreset import coreset
from secondpass.tuner.portfolio import Portfolio, sampled, shipped, write

A, B, C = ("sroa",), ("gvn",), ("dse",)


def portfolio(*shares, weights=None):
    table = np.array(shares, dtype=np.float32)
    return Portfolio((A, B, C), table, np.array(weights or [1.0] * len(table), dtype=np.float32))


TWINS = portfolio([1, 1, 0], [1, 1, 0], [0, 0, 1])
"""Two lists that are good on the same functions, and one that is good on the others."""


def test_a_model_that_knows_nothing_leaves_the_order_of_the_cover():
    table = portfolio([1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.5])
    usual = np.log([0.5, 0.25, 0.25])  # as probable as they are taught
    assert table.order(usual.tolist(), 3) == [0, 1, 2]


def test_the_first_list_is_good_where_the_model_says_it_is():
    assert TWINS.order(np.log([0.05, 0.05, 0.9]).tolist(), 1) == [2]


def test_the_second_list_is_not_the_first_one_s_twin():
    assert TWINS.order(np.log([0.5, 0.45, 0.05]).tolist(), 2) == [0, 2]


def test_where_nothing_adds_anything_the_more_probable_list_comes_first():
    table = portfolio([1, 1, 1])
    assert table.order(np.log([0.2, 0.3, 0.5]).tolist(), 3) == [2, 1, 0]


def test_functions_count_by_their_weights():
    usual = np.log([0.1, 0.9, 1e-9])
    assert portfolio([1, 0, 0], [0, 1, 0], weights=[1, 9]).order(usual.tolist(), 1) == [1]
    assert portfolio([1, 0, 0], [0, 1, 0], weights=[9, 1]).order(usual[[1, 0, 2]].tolist(), 1) == [0]


def test_lists_that_cannot_be_answers_are_left_out():
    assert TWINS.order([-math.inf, math.log(0.4), math.log(0.6)], 9) in ([1, 2], [2, 1])
    assert TWINS.order([-math.inf] * 3, 2) == []


def test_a_sample_holds_functions_with_a_gain_alone():
    values = np.array([[10, 8, 0], [10, 12, 11], [9, 10, 6]], dtype=np.int32)
    found = sampled((A, B, C), [10, 10, 10], values, 5, 0)
    assert found.shares == pytest.approx(np.array([[0, 1, 0], [0.25, 0, 1]]), abs=0.005)
    assert found.weights == pytest.approx([math.sqrt(2), 2])
    assert len(sampled((A, B, C), [10, 10, 10], values, 1, 0).weights) == 1


def test_what_ships_is_the_coreset_and_a_file_is_what_was_written(tmp_path):
    found = shipped(Objective.INSTRUCTIONS)
    assert found.lists == tuple(it.words for it in coreset(Objective.INSTRUCTIONS, 50))
    assert found.shares.shape == (len(found.weights), 50)
    assert (found.shares.max(axis=1) == 1).all()
    write(tmp_path / "again.npz", found)
    with np.load(tmp_path / "again.npz") as arrays:
        assert (arrays["shares"] == np.rint(found.shares * 255)).all()
        assert [tuple(text.split()) for text in arrays["lists"].tolist()] == list(found.lists)
