"""Numbers behind the drawings, against plain loops; drawings that can be read as SVG."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.report import drawings


def ranks_of(rank, candidates):
    count = len(rank)
    return Ranks(np.arange(count), np.arange(count), np.zeros(count), rank, candidates)


RANKS = ranks_of([0, 0, 1, 2, 4, 9, 49, 50, 99, 100, 600, -1], 700)


def test_recall_at_every_k_is_the_metric():
    curve = drawings.recall_curve(RANKS)
    assert len(curve) == drawings.LONGEST
    for k in (1, 3, 10, 50):
        assert curve[k - 1] == RANKS.mean(f"recall@{k}")
    assert len(drawings.recall_curve(ranks_of([0, -1], 8))) == 8


def test_shares_by_place_sum_to_one_and_end_with_the_list():
    shares = drawings.rank_shares(RANKS)
    counts = {label: round(share * 12) for label, share in shares.items()}
    assert counts == {
        **{"1": 2, "2-3": 2, "4-5": 1, "6-10": 1, "11-20": 0, "21-50": 1, "51-100": 2, "101-500": 1},
        **{"over 500": 1, "absent": 1},
    }
    assert sum(shares.values()) == pytest.approx(1)
    assert list(drawings.rank_shares(ranks_of([0, 7], 8))) == ["1", "2-3", "4-5", "6-10"]


def test_drawings_are_svg_and_the_same_each_time():
    for draw in (drawings.recall_drawing, drawings.rank_drawing):
        one, again = draw({"a & b": RANKS, "c": RANKS}), draw({"a & b": RANKS, "c": RANKS})
        assert one == again and ElementTree.fromstring(one.svg).tag.endswith("svg")
    bars = drawings.bar_drawing({"a": ([0.1, 0.2], [0.01, float("nan")])}, ["x", "y"], "title", "caption")
    assert ElementTree.fromstring(bars.svg) is not None and bars.caption == "caption"
