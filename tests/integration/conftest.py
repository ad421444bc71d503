"""The order of the tests that have a real broker: the long ones first, so that none is begun while the other processes are done."""

from __future__ import annotations

import pytest

# By the seconds of their longest test. The rest follow as they stand.
LONGEST_FIRST = (
    "test_rekeyed_topics.py",
    "test_compacted_topics.py",
    "test_worker.py",
    "test_feedback_worker.py",
    "test_feedback_topics.py",
    "test_demo.py",
    "test_bad_input.py",
    "test_array_worker.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
