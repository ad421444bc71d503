"""Idle partitions: hand-computed ticks."""

from __future__ import annotations

from stream.panes import EDGE_END, Announcement, Marker
from stream.watch import IdleRule, MarkerWatch


def marker(partition: int, edge_ms: int, largest_ms: int = 0) -> Marker:
    return Marker(partition, "inputs", edge_ms, {"predictions": 1}, {}, {}, largest_ms)


def rule(sources: int = 3) -> IdleRule:
    return IdleRule(MarkerWatch(sources), idle_timeout_s=60, lateness_ms=1_000, resolution_ms=10_000)


def test_an_idle_partition_follows_the_slowest_of_the_active_ones():
    idle = rule()
    idle.see({0: 5, 1: 5, 2: 5}, 0.0)
    idle.see({0: 5, 1: 6, 2: 6}, 50.0)
    for partition, edge in ((1, 40_000), (2, 30_000)):
        idle.watch.add(1, marker(partition, edge))
    assert idle.tick_ms(0, 5, 59.9) is None
    assert idle.tick_ms(0, 4, 61.0) is None  # not wholly read
    assert idle.tick_ms(0, 5, 61.0) == 30_000
    idle.watch.add(1, marker(0, 30_000))
    assert idle.tick_ms(0, 5, 61.0) is None  # it is there already


def test_no_tick_before_every_active_partition_has_marked():
    idle = rule()
    idle.see({0: 5, 1: 5, 2: 5}, 0.0)
    idle.see({1: 6, 2: 6}, 50.0)
    idle.watch.add(1, marker(1, 40_000))
    assert idle.tick_ms(0, 5, 61.0) is None


def test_all_idle_the_wall_clock_goes_on_from_the_largest_event_time():
    idle = rule()
    idle.see({0: 5, 1: 5, 2: 5}, 0.0)
    assert idle.tick_ms(0, 5, 100.0) is None  # no marker says where event time is
    idle.watch.add(1, marker(1, 40_000, 47_500))
    assert idle.tick_ms(0, 5, 100.0) == 140_000  # 47.5 + 100 - 1 = 146.5 s, down to an edge


def test_a_lower_epoch_is_void():
    watch = MarkerWatch(1)
    watch.add(2, Announcement(0))
    watch.add(1, marker(0, 90_000))
    assert watch.marked_ms == {}
    watch.add(2, marker(0, 20_000))
    assert watch.marked_ms == {0: 20_000}


def test_the_end_is_seen_when_all_have_marked_it():
    watch = MarkerWatch(2)
    watch.add(1, marker(0, EDGE_END))
    assert not watch.ended
    watch.add(1, marker(1, EDGE_END))
    assert watch.ended
