"""Which reference is in force: what was promoted, else what was learnt; repeats, races and compaction change nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from stream import references
from stream.references import ActiveReference, ControlLog, ReferencesError, promote, rollback
from stream.topics import TopicRole

LEARNING = ActiveReference("m", "L", 1, "learning")
PINNED = ActiveReference("m", "L", 2, "pinned")
CONFIG: Any = SimpleNamespace(models={"m": None})


class Control:
    """The control topic in memory. `race`: written by somebody else right before the next record."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.race: list[ActiveReference] = []

    def put(self, *records: ActiveReference) -> None:
        self.records += [record.encode() for record in records]

    def write(self, _config: Any, records: list[tuple[TopicRole, bytes, bytes]]) -> None:
        for role, key, value in records:
            assert role is TopicRole.CONTROL
            self.put(*self.race)
            self.race.clear()
            self.records.append((key, value))

    def read(self, *_: Any) -> list[tuple[bytes, bytes | None]]:
        return list(self.records)

    def active(self, *, compacted: bool = False) -> ActiveReference:
        log = ControlLog()
        for key, value in dict(self.records).items() if compacted else self.records:
            log.add(key, value)
        return log.active["m"]


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> Control:
    made = Control()
    monkeypatch.setattr(references, "_write", made.write)
    monkeypatch.setattr(references, "_whole", made.read)
    monkeypatch.setattr(references, "read_references", lambda _config: SimpleNamespace(get=_stored, ids=tuple))
    return made


def _stored(name: str) -> Any:
    return SimpleNamespace(id=name, model="m")


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("before", [(), (LEARNING,), (LEARNING, PINNED)])
def test_a_monitor_that_repeats_itself_does_not_undo_a_promotion(
    control: Control, before: tuple[ActiveReference, ...], compacted: bool
) -> None:
    control.put(*before)
    promoted = promote(CONFIG, "m", "X")
    for repeated in (LEARNING, PINNED, LEARNING):
        control.put(repeated)
        assert control.active(compacted=compacted) == promoted


def test_what_was_learnt_is_in_force_while_nothing_was_promoted(control: Control) -> None:
    control.put(LEARNING)
    assert control.active() == LEARNING
    control.put(PINNED, LEARNING)  # a restart repeats: the lower revision changes nothing
    assert control.active() == PINNED


def test_rollback_goes_back_to_what_was_learnt(control: Control) -> None:
    control.put(LEARNING, PINNED)
    with pytest.raises(ReferencesError, match="no reference was active before"):
        rollback(CONFIG, "m")
    assert promote(CONFIG, "m", "X").history == ("L",)
    back = rollback(CONFIG, "m")
    assert (back.reference, back.history) == ("L", ())
    control.put(LEARNING, PINNED)
    assert control.active() == back
    assert promote(CONFIG, "m", "L") == back  # it is in force already


def test_the_later_of_two_promotions_at_the_same_time_wins_after_compaction_too(control: Control) -> None:
    promote(CONFIG, "m", "A")
    control.race = [ActiveReference("m", "B", 2), ActiveReference("m", "C", 3)]
    made = promote(CONFIG, "m", "X")
    assert made.revision == 4
    assert control.active() == control.active(compacted=True) == made
    control.race = [ActiveReference("m", "B", 5)]
    assert promote(CONFIG, "m", "Y") == control.active(compacted=True)


def test_the_monitor_writes_what_the_control_log_reads(control: Control) -> None:
    key, value = LEARNING.encode()
    assert key == b"learnt/m"
    assert orjson.loads(value)["state"] == "learning"
    assert ActiveReference("m", "X", 1).encode()[0] == b"reference/m"
    control.put(ActiveReference("m", "X", 1), LEARNING)
    control.records.append((b"reference/m", None))
    assert control.active() == LEARNING
