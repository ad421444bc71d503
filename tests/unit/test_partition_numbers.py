"""Partitions with the same number of topics that are joined belong to one member, however many members there are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from stream.transport import ASSIGNORS

TOPICS = ("predictions", "clicks", "labels")
MONITORS = 8


def shares(assignor: type, partitions: int, members: int) -> list[dict[str, list[int]]]:
    """Of each member the partitions that it has of each topic."""
    counts = dict.fromkeys(TOPICS, partitions) | {"panes": MONITORS}
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])), topics=lambda: set(counts))
    told = {f"member-{m}": SimpleNamespace(subscription=list(counts)) for m in range(members)}
    return [dict(each.assignment) for each in assignor.assign(cluster, told).values()]  # type: ignore[attr-defined]


def numbers(assignor: type, partitions: int, members: int) -> list[set[frozenset[int]]]:
    """Of each member the sets of numbers that it has of the topics that are joined; one, if they stay together."""
    given = shares(assignor, partitions, members)
    return [{frozenset(each.get(topic, ())) for topic in TOPICS} for each in given]


@pytest.mark.parametrize("members", range(1, 6))
@pytest.mark.parametrize("partitions", range(1, 10))
def test_numbers_stay_together(partitions: int, members: int) -> None:
    (assignor,) = ASSIGNORS
    assert all(len(each) == 1 for each in numbers(assignor, partitions, members))


@pytest.mark.parametrize("members", range(1, 10))
@pytest.mark.parametrize("partitions", range(1, 10))
def test_everything_is_given_to_somebody_once_and_evenly(partitions: int, members: int) -> None:
    (assignor,) = ASSIGNORS
    given = shares(assignor, partitions, members)
    for topic, count in (*dict.fromkeys(TOPICS, partitions).items(), ("panes", MONITORS)):
        assert sorted(p for each in given for p in each.get(topic, ())) == list(range(count))
        sizes = [len(each.get(topic, ())) for each in given]
        assert max(sizes) - min(sizes) <= 1


def test_fausts_own_choice_splits_them() -> None:
    assert any(len(each) > 1 for each in numbers(RoundRobinPartitionAssignor, 3, 2))
    assert any(len(each) > 1 for each in numbers(RoundRobinPartitionAssignor, 4, 3))
