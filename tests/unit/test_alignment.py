"""How far a partition may run ahead, on hand-made marks."""

from __future__ import annotations

from stream.alignment import AHEAD_EDGES_MIN, PENDING_PANES_MAX, Alignment, ahead_edges_max
from stream.panes import EDGE_END


def test_a_partition_waits_once_it_is_further_ahead_than_the_slack():
    rule = Alignment(sources=3, slack_ms=100)
    assert not rule.ahead(0, {0: 1000, 1: 900, 2: 950})
    assert rule.ahead(0, {0: 1001, 1: 900, 2: 950})
    assert not rule.ahead(1, {0: 1001, 1: 900, 2: 950})
    assert not rule.ahead(0, {0: 1001, 1: 901, 2: 950})


def test_one_that_has_marked_nothing_stands_where_the_asking_one_began():
    rule = Alignment(sources=2, slack_ms=100)
    assert not rule.ahead(0, {})
    assert not rule.ahead(0, {0: 1000})
    assert not rule.ahead(0, {0: 1100})
    assert rule.ahead(0, {0: 1101})
    assert not rule.ahead(0, {0: 1101, 1: 1001})


def test_an_ended_input_neither_waits_nor_is_waited_for():
    rule = Alignment(sources=2, slack_ms=100)
    assert not rule.ahead(0, {0: EDGE_END, 1: 5})
    assert rule.ahead(1, {0: 5, 1: 200})
    assert not rule.ahead(1, {0: EDGE_END, 1: 200})


def test_the_slack_shrinks_with_partitions_and_the_size_of_a_pane():
    assert ahead_edges_max(4, 1_000, 1) == PENDING_PANES_MAX // 4
    assert ahead_edges_max(4, 1 << 20, 1) == 16
    assert ahead_edges_max(64, 1 << 30, 100) == AHEAD_EDGES_MIN
