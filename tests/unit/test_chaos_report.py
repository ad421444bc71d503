"""The chaos run's own judgement: percentiles, what restores read, and the traffic's seed."""

from __future__ import annotations

import re

import pytest

from load_tests.chaos.report import allowed_bytes, percentile, restores
from load_tests.chaos.traffic import SPOILT, Source
from stream.assignment import Owners, Slot
from stream.metrics import Metrics
from stream.protocol import Restored


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.95, None), ([7.0], 0.95, 7.0), (range(1, 101), 0.95, 95), (range(1, 101), 0.5, 50), ((1, 2, 3), 1.0, 3)],
)
def test_a_percentile_is_one_of_the_values(values, share, expected):
    assert percentile(list(values), share) == expected


def restored(**changes) -> Restored:
    plain = {"epoch": 3, "vector": {"predictions": 7}, "records": 9, "attempts": 1, "corrupt": 0, "blobs": 2}
    return Restored(
        **plain
        | {"live_bytes": 700_000, "decisions": 0, "held": 0, "interval_bytes": 1_000, "claims_bytes": 300}
        | {"unfinished_bytes": 5_000, "unfinished": 2, "owners_before": 2, "largest_live_bytes": 900_000}
        | changes
    )


def test_a_restore_that_read_too_much_is_found_in_the_log_that_a_worker_writes(tmp_path, caplog):
    caplog.set_level("INFO")
    owners = Owners(None, None, begin=None, is_transient=None, monitors=1, metrics=Metrics())
    most = allowed_bytes(900_000, 1_000, 300, 5_000)
    assert most == 1_807_300
    for slot in (Slot("collector", 1, None, None, 1), Slot("monitor", 0, None, None, 1)):
        owners._note_restore(slot, restored(read_bytes=most), 0.1)
        owners._note_restore(slot, restored(read_bytes=most + 1, whole=True), 0.1)
    (tmp_path / "worker-0.log").write_text(caplog.text)
    found = restores(tmp_path)
    assert (found["n"], found["whole_log"], found["read_bytes"]["max"], found["over"]) == (4, 2, most, [])
    owners._note_restore(slot, restored(read_bytes=most + 1), 0.1)
    (tmp_path / "worker-1.log").write_text(caplog.text)
    assert len(restores(tmp_path)["over"]) == 1
    owners._note_restore(slot, restored(read_bytes=most, unfinished=3), 0.1)  # an owner that left two
    (tmp_path / "worker-1.log").write_text(caplog.text)
    assert len(restores(tmp_path)["over"]) == 2


def test_traffic_is_a_function_of_the_seed_and_has_every_kind_of_event_and_silence():
    def events(seed: int) -> tuple[Source, list[list[tuple[int, bytes | None]]]]:
        source = Source(seed, 1_800_000_000_000)
        return source, [source.step() for _ in range(2_000)]

    source, steps = events(1)
    assert steps == events(1)[1]
    assert steps != events(2)[1]
    assert {*SPOILT, "good", "cut", "tombstone", "empty", "twice", "again"} == set(source.kinds)
    for partition in range(4):
        marks = "".join("x" if any(place == partition for place, _ in step) else "." for step in steps)
        assert re.search(r"x\.{150,}x", marks), marks  # silent for longer than the idle timeout, and back
