"""Lanes: names, and who reads which in what order."""

from __future__ import annotations

import pytest

from streamwork.errors import ConfigError
from streamwork.model.lane import is_lane, lane_name, lane_tags, readable_lanes


def test_ten_priorities_make_four_levels():
    assert [lane_name(priority, ()) for priority in range(10)] == ["0:"] * 3 + ["1:"] * 3 + ["2:"] * 3 + ["3:"]


@pytest.mark.parametrize("priority", [-1, 10, 5.0, "5", True, None])
def test_other_priorities_are_refused(priority):
    with pytest.raises(ConfigError, match=r"0 \(last\) to 9 \(first\)"):
        lane_name(priority, ())


def test_tags_are_sorted_so_that_one_set_is_one_lane():
    assert lane_name(9, ["gpu", "eu"]) == lane_name(9, {"eu", "gpu"}) == "3:eu,gpu"


@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b.c", "d-e")])
def test_the_tags_of_a_lane_can_be_read_back(tags):
    assert lane_tags(lane_name(5, tags)) == frozenset(tags)


def test_a_name_that_does_not_fit_into_the_slot_table_is_refused():
    assert lane_name(5, ["t" * 100, "u" * 100])
    with pytest.raises(ConfigError, match="253 characters"):
        lane_name(5, ["t" * 100, "u" * 100, "v" * 100])


def test_a_worker_reads_the_lanes_whose_tags_it_offers_all_of():
    lanes = ["1:", "1:gpu", "1:eu,gpu", "1:eu,tpu"]
    assert set(readable_lanes(lanes, frozenset())) == {"1:"}
    assert set(readable_lanes(lanes, frozenset({"gpu"}))) == {"1:", "1:gpu"}
    assert set(readable_lanes(lanes, frozenset({"gpu", "eu", "x"}))) == {"1:", "1:gpu", "1:eu,gpu"}


def test_it_reads_the_highest_level_first_and_in_it_what_fewest_others_can_do():
    lanes = ["0:eu,gpu", "1:", "3:", "1:gpu", "1:eu,gpu", "2:"]
    assert readable_lanes(lanes, frozenset({"eu", "gpu"})) == ["3:", "2:", "1:eu,gpu", "1:gpu", "1:", "0:eu,gpu"]


@pytest.mark.parametrize("name", ["", ":", "nonsense", "x:", "-1:", "1", " 1:", "²:", "1_0:", "1234:eu"])
def test_what_is_no_lanes_name_is_left_out(name):
    assert not is_lane(name)
    assert readable_lanes([name, "1:", "2:eu"], frozenset({"eu"})) == ["2:eu", "1:"]
