"""Partitions with the same number of topics that are joined belong to one member, however many members there are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stream.transport import ASSIGNORS

TOPICS = ("predictions", "clicks", "labels")
MONITORS = 8


def numbers(assignor: type, partitions: int, members: int) -> list[set[frozenset[int]]]:
    """Of each member the sets of numbers that it has of the topics that are joined; one, if they stay together."""
    counts = dict.fromkeys(TOPICS, partitions) | {"panes": MONITORS}
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: set(range(counts[topic])), topics=lambda: set(counts))
    told = {f"member-{m}": SimpleNamespace(subscription=list(counts)) for m in range(members)}
    given = [dict(each.assignment) for each in assignor.assign(cluster, told).values()]  # type: ignore[attr-defined]
    held = [{frozenset(each.get(topic, ())) for topic in TOPICS} for each in given]
    assert sorted(p for each in given for p in each.get("predictions", ())) == list(range(partitions))
    return held


@pytest.mark.parametrize("members", range(1, 6))
@pytest.mark.parametrize("partitions", range(1, 10))
def test_numbers_stay_together(partitions: int, members: int) -> None:
    assert all(len(each) == 1 for each in numbers(ASSIGNORS[0], partitions, members))


def test_fausts_own_choice_splits_them() -> None:
    assert any(len(each) > 1 for each in numbers(ASSIGNORS[1], 3, 2))
    assert any(len(each) > 1 for each in numbers(ASSIGNORS[1], 4, 3))
