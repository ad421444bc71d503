"""The ownership protocol step by step, on a broker of dictionaries: what is refused, what is passed over, what is kept."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import crc32c
import pytest

from stream import snapshot_format, state_writer
from stream.container import UnknownVersion, encode
from stream.epochs import epoch_of
from stream.journal import decode_decision
from stream.ownership import PartitionOwner
from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    Commit,
    Effect,
    Fenced,
    ForeignState,
    InputLost,
    LogIncomplete,
    LogRecord,
    LogSlice,
    ManifestTooLarge,
    NewerState,
    NotReady,
    OwnerDead,
    ReadAt,
    ReadLog,
    ReadMetadata,
    Restored,
    StateCorrupt,
    StateLost,
)
from stream.snapshot_format import CHUNK_BYTES, checked_key, parse_key
from stream.stage import Decision, Output, StageWaits
from stream.state_writer import FAR_FLOOR_BYTES

STATE = "state.monitor"


class Words:
    """A stage: every word is a blob; "!x" is said at once."""

    def __init__(self) -> None:
        self.outbox: list[Output] = []
        self.words: dict[str, bytes] = {}
        self.dirty: dict[str, bytes | None] = {}

    def apply(self, source: str, batch: Any) -> None:
        for word, value in batch:
            if word == "fail":
                raise ValueError(word)
            if word == "wait":
                raise StageWaits("wait", value)
            if word.startswith("!"):
                self.outbox.append(Output("windows", word.encode(), value, 0))
            else:
                self.dirty[word] = value
                self.words[word] = value
                if value is None:
                    del self.words[word]

    def decide(self, decision: Decision) -> None:
        self.outbox.append(Output("windows", b"decided", str(decision.number).encode(), 0))

    def changed_blobs(self) -> dict[str, bytes | None]:
        dirty, self.dirty = self.dirty, {}
        return dirty

    def load(self, blobs: Mapping[str, bytes]) -> None:
        self.words = dict(blobs)


class Broker:
    def __init__(self) -> None:
        self.logs: dict[str, list[LogRecord]] = {STATE: [], "windows": [], "journal": [], "panes": []}
        self.bounds = {"panes": (3, 50)}
        self.commits: list[tuple[dict[str, int], str]] = []
        self.refuse = False
        self.short = 0  # a reader that stops so many offsets early
        self.steps: list[str] = []
        self.writers = 0
        self.reads: list[int | None] = []

    def owner(self, **options: Any) -> PartitionOwner:
        self.writers += 1
        return PartitionOwner("monitor", 0, Words(), f"w{self.writers}", sources=("panes",), **options)

    def restored(self, **options: Any) -> tuple[PartitionOwner, Restored]:
        owner = self.owner(**options)
        return owner, self.drive(owner.restore())

    def drive(self, steps: Any, before: Callable[[Effect], None] = lambda _: None) -> Any:
        reply = None
        while True:
            try:
                effect = steps.send(reply)
            except StopIteration as stop:
                return stop.value
            self.steps.append(effect.step)
            before(effect)
            reply = self.execute(effect)

    def end(self, topic: str) -> int:
        log = self.logs[topic]
        return log[-1].offset + 1 if log else 0

    def execute(self, effect: Effect) -> Any:
        match effect:
            case ReadMetadata():
                return self.commits[-1][1] if self.commits else ""
            case ReadLog(topic=topic, start=start):
                self.reads.append(start)
                records = [record for record in self.logs[topic] if record.offset >= (start or 0)]
                end = self.end(topic)
                return LogSlice(0, end, start or 0, end - self.short, records)
            case ReadAt(topic=topic, offsets=offsets):
                found = {record.offset: record.value for record in self.logs[topic]}
                return tuple(found.get(offset) for offset in offsets)
            case Bounds():
                return dict(self.bounds)
            case Append(outputs=outputs):
                return tuple(map(self.append, outputs))
            case Acknowledged():
                return None
            case Commit(vector=vector, metadata=metadata):
                if not self.refuse:
                    self.commits.append((vector, metadata))
                return not self.refuse
        raise AssertionError(effect)

    def append(self, output: Output) -> int:
        offset = self.end(output.topic)
        self.logs[output.topic].append(LogRecord(offset, output.key or b"", output.value))
        return offset

    def live(self) -> dict[bytes, bytes]:
        last = {record.key: record.value for record in self.logs[STATE]}
        return {key: value for key, value in last.items() if value is not None}

    def damage(
        self, kind: str, change: Callable[[bytes], bytes] = lambda data: data[:-1] + b"?", *, back: int = 0
    ) -> None:
        """Change the last record of a kind (c, m, b), or the one `back` before it."""
        log = self.logs[STATE]
        places = [at for at, r in enumerate(log) if r.value is not None and (parse_key(r.key) or 0)[1] == kind]  # type: ignore[index]
        record = log[places[-1 - back]]
        log[places[-1 - back]] = replace(record, value=change(record.value or b""))


def say(broker: Broker, owner: PartitionOwner, *batch: tuple[str, Any]) -> None:
    owner.apply("panes", batch, owner.vector["panes"] + len(batch))
    broker.drive(owner.snapshot())


def words(owner: PartitionOwner) -> dict[str, bytes]:
    assert isinstance(owner.stage, Words)
    return owner.stage.words


def test_a_partition_without_any_record_starts_empty_at_the_beginning_and_fences_there() -> None:
    broker = Broker()
    owner, restored = broker.restored()
    assert (restored.epoch, restored.vector, restored.records, restored.blobs) == (1, {"panes": 3}, 1, 0)
    assert broker.commits == [({"panes": 3}, "")]
    assert owner.may_decide()  # nobody was there before


def test_state_vector_and_epoch_go_from_owner_to_owner() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"), ("b", b"2"))
    say(broker, owner, ("a", None), ("c", b"3"))
    second, restored = broker.restored()
    assert words(second) == {"b": b"2", "c": b"3"}
    assert (second.epoch, second.vector) == (2, {"panes": 7})
    assert (restored.blobs, restored.corrupt) == (2, 0)
    assert broker.commits[-1][0] == {"panes": 7}


def test_nothing_changed_nothing_written() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    assert owner.changed  # the first manifest proves the claim
    assert broker.drive(owner.snapshot()).sequence == 1
    assert not owner.changed
    end = broker.end(STATE)
    assert broker.drive(owner.snapshot()) is None
    assert broker.end(STATE) == end


def test_outputs_leave_at_once_until_a_decision_and_then_after_its_commit() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    owner.apply("panes", [("!now", b"")], 4)
    assert [output.key for output in owner.take_outputs()] == [b"!now"]
    owner.apply("panes", [("!before", b"")], 5)
    decision = owner.decide("tick", {"until_ms": 9})
    owner.apply("panes", [("!after", b"")], 6)
    assert owner.take_outputs() == ()
    assert owner.holding

    def nothing_left_before_the_commit(effect: Effect) -> None:
        if effect.step in ("snapshot.5-manifest", "snapshot.6-commit"):
            assert not broker.logs["windows"]
            assert not broker.logs["journal"]

    saved = broker.drive(owner.snapshot(), nothing_left_before_the_commit)
    assert (saved.decisions, saved.released) == (1, 3)
    assert [record.key for record in broker.logs["windows"]] == [b"!before", b"decided", b"!after"]
    assert len(broker.logs["journal"]) == 1
    assert decision.position == {"panes": 5}
    assert broker.steps.index("snapshot.7-journal") < broker.steps.index("snapshot.8-release")
    assert not owner.holding
    assert not owner.decisions


def test_what_comes_during_a_release_follows_it_and_a_newer_decision_holds_the_rest() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    owner.decide("tick", {})
    pending = ["!second", "!third"]

    def meanwhile(effect: Effect) -> None:
        if effect.step == "snapshot.8-release" and pending:
            owner.apply("panes", [(pending.pop(0), b"")], owner.vector["panes"] + 1)
            assert owner.take_outputs() == ()
            if not pending:
                owner.decide("tick", {})

    broker.drive(owner.snapshot(), meanwhile)
    assert [record.key for record in broker.logs["windows"]] == [b"decided", b"!second"]
    assert [output.key for output in owner.held] == [b"!third", b"decided"]
    assert [decision.number for decision in owner.decisions] == [2]


def test_held_outputs_and_decisions_are_sent_by_the_next_owner() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    owner.apply("panes", [("!a", b"1")], 4)
    owner.decide("tick", {})

    def die(effect: Effect) -> None:
        if effect.step == "snapshot.7-journal":
            raise ConnectionError

    with pytest.raises(ConnectionError):
        broker.drive(owner.snapshot(), die)
    second, restored = broker.restored()
    assert (restored.held, restored.decisions) == (2, 1)
    assert [record.key for record in broker.logs["windows"]] == [b"!a", b"decided"]
    assert len(broker.logs["journal"]) == 1
    assert not second.holding
    assert not second.may_decide()  # a predecessor may have read to the end
    with pytest.raises(NotReady, match="predecessor"):
        second.decide("tick", {})
    second.apply("panes", [], 50)
    assert second.decide("tick", {}).number == 2


def test_hold_all_lets_nothing_out_before_a_commit() -> None:
    broker = Broker()
    owner, _ = broker.restored(hold_all=True)
    owner.apply("panes", [("!a", b"1")], 4)
    assert owner.take_outputs() == ()
    broker.drive(owner.snapshot())
    assert [record.key for record in broker.logs["windows"]] == [b"!a"]
    assert owner.holding


def test_announcements_carry_the_epoch_of_the_new_owner_before_anything_else_is_said() -> None:
    broker = Broker()
    announcements = [Output("panes", None, b"here", 0, (("epoch", b"77"),))]
    broker.restored(announcements=announcements)
    said: list[Output] = []
    broker.drive(broker.owner(announcements=announcements).restore(), lambda e: said.extend(getattr(e, "outputs", ())))
    assert [epoch_of(output.headers) for output in said if output.topic == "panes"] == [2]
    assert broker.steps.index("restore.5-read-back") < broker.steps.index("restore.7-announce")


@pytest.mark.parametrize("step", ["restore.3-fence", "snapshot.6-commit"])
def test_a_refused_commit_ends_the_owner(step: str) -> None:
    broker = Broker()
    owner = broker.owner()

    def refuse(effect: Effect) -> None:
        broker.refuse = effect.step == step

    def live() -> None:
        broker.drive(owner.restore(), refuse)
        owner.apply("panes", [("a", b"")], 4)
        broker.drive(owner.snapshot(), refuse)

    with pytest.raises(Fenced):
        live()
    assert owner.dead
    assert not owner.ready
    with pytest.raises(OwnerDead):
        owner.apply("panes", [], 5)
    with pytest.raises(OwnerDead):
        owner.take_outputs()


def test_an_exception_of_the_stage_kills_and_a_wait_does_not() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    with pytest.raises(StageWaits):
        owner.apply("panes", [("a", b"1"), ("wait", 4)], 9)
    assert owner.vector == {"panes": 4}
    broker.drive(owner.snapshot())
    with pytest.raises(ValueError, match="fail"):
        owner.apply("panes", [("b", b"1"), ("fail", 0)], 9)
    assert owner.dead
    assert words(broker.restored()[0]) == {"a": b"1"}


def test_a_lost_claim_starts_again_from_the_winner() -> None:
    broker = Broker()
    first, _ = broker.restored()
    say(broker, first, ("a", b"1"))
    rival = broker.owner()

    def overtake(effect: Effect) -> None:
        if effect.step == "restore.4-claim" and rival.epoch == 0:
            broker.drive(rival.restore())
            say(broker, rival, ("b", b"2"))

    owner = broker.owner()
    restored = broker.drive(owner.restore(), overtake)
    assert (rival.epoch, owner.epoch, restored.attempts) == (2, 3, 2)
    assert words(owner) == {"a": b"1", "b": b"2"}


def test_a_writer_with_a_manifest_has_won_wherever_compaction_left_its_claim() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    log = broker.logs[STATE]
    claim = next(record for record in log if (parse_key(record.key) or 0)[1] == "c")  # type: ignore[index]
    loser = replace(claim, key=checked_key(claim.key[:-9].decode().replace("w1.0", "w0.0")))
    log[:] = [loser, *[record for record in log if record is not claim], replace(claim, offset=broker.end(STATE))]
    assert words(broker.restored()[0]) == {"a": b"1"}


# -- damage


def test_what_another_owner_might_read_otherwise_leaves_after_the_commit() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    owner.apply("panes", [("!before", b"")], 4)
    assert [output.key for output in owner.take_outputs()] == [b"!before"]
    owner.apply("panes", [("!given up", b"")], 5, hold=True)
    owner.apply("panes", [("!behind", b"")], 6)
    assert owner.take_outputs() == ()
    saved = broker.drive(owner.snapshot())
    assert saved.released == 2
    assert [record.key for record in broker.logs["windows"]] == [b"!given up", b"!behind"]
    assert broker.steps.index("snapshot.6-commit") < broker.steps.index("snapshot.8-release")
    owner.apply("panes", [("!after", b"")], 7)
    assert [output.key for output in owner.take_outputs()] == [b"!after"]


def test_a_damaged_manifest_is_passed_over_and_counted() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    say(broker, owner, ("a", b"2"), ("b", b"2"))
    broker.damage("m")
    second, restored = broker.restored()
    assert (words(second), second.vector, restored.corrupt) == ({"a": b"1"}, {"panes": 4}, 1)


def test_any_damage_to_the_newest_manifest_or_blob_gives_the_one_before() -> None:
    for kind in ("m", "b"):
        size = 0
        place = 0
        while place <= size:
            broker = Broker()
            owner, _ = broker.restored()
            say(broker, owner, ("a", b"1"))
            say(broker, owner, ("a", b"2"))
            broker.commits.clear()  # as if the hint were lost: more is read, no more is right

            def flip(data: bytes, place: int = place) -> bytes:
                return (
                    data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :] if place < len(data) else data[:-1]
                )

            size = len(
                [r for r in broker.logs[STATE] if r.value and (parse_key(r.key) or 0)[1] == kind][-1].value or b""
            )  # type: ignore[index]
            broker.damage(kind, flip)
            second, restored = broker.restored()
            assert (words(second), second.vector, restored.corrupt) == ({"a": b"1"}, {"panes": 4}, 1)
            place += 1


def test_passing_over_a_manifest_must_not_forget_a_decision() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    owner.decide("tick", {})
    broker.drive(owner.snapshot())
    broker.damage("m")
    with pytest.raises(StateCorrupt):
        broker.restored()
    assert [record for record in broker.logs[STATE] if (parse_key(record.key) or 0)[2] > 1] == []  # type: ignore[index]


def test_the_newest_manifest_but_one_survives_compaction_and_the_log_stays_bounded() -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 500)
    owner, _ = broker.restored()
    for turn in range(30):
        say(broker, owner, ("a", str(turn).encode()), (f"x{turn}", b"1"), (f"x{turn - 3}", None))
        assert len(broker.live()) < 20
    keep = broker.live()
    broker.logs[STATE] = [record for record in broker.logs[STATE] if keep.get(record.key) == record.value]
    broker.damage("m")
    second, restored = broker.restored()
    assert (words(second)["a"], restored.corrupt) == (b"28", 1)
    for turn in range(3):
        say(broker, second, ("a", str(turn).encode()))
    assert {(parse_key(key) or 0)[2] for key in broker.live()} <= {1, 2}  # type: ignore[index]
    assert [key for key in broker.live() if (parse_key(key) or 0)[1:3] == ("c", 1)] == []  # type: ignore[index]


def newer_container(data: bytes) -> bytes:
    """The same in a container format to come: its checksum is right."""
    start = data[:4] + b"\x63\x00"
    return start + struct.pack("<I", crc32c.crc32c(start + data[10:])) + data[10:]


def test_a_newer_blob_is_refused_before_anything_is_written() -> None:
    class Newer(Words):
        def load(self, blobs: Mapping[str, bytes]) -> None:
            raise UnknownVersion("words", 2, (1,))

    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    before, commits = broker.end(STATE), len(broker.commits)
    with pytest.raises(NewerState, match="words version 2"):
        broker.drive(PartitionOwner("monitor", 0, Newer(), "w9", sources=("panes",)).restore())
    assert (broker.end(STATE), len(broker.commits)) == (before, commits)


def test_another_clusters_state_is_refused_by_name_and_nothing_is_overwritten() -> None:
    broker = Broker()
    owner, _ = broker.restored(home="here")
    say(broker, owner, ("a", b"1"))
    before = broker.end(STATE)
    with pytest.raises(ForeignState, match="made for cluster 'here', this is 'there'"):
        broker.restored(home="there")
    assert broker.end(STATE) == before
    assert words(broker.restored(home="here")[0]) == {"a": b"1"}


def test_newer_formats_are_refused_by_name_and_nothing_is_overwritten() -> None:
    for change in (lambda _: encode("manifest", 99, {}, {}), newer_container):
        broker = Broker()
        owner, _ = broker.restored()
        say(broker, owner, ("a", b"1"))
        broker.damage("m", change)
        before = broker.end(STATE)
        with pytest.raises(NewerState, match="version"):
            broker.restored()
        assert broker.end(STATE) == before
    broker = Broker()
    broker.logs[STATE].append(LogRecord(0, checked_key("0/z/new"), b""))
    with pytest.raises(NewerState, match="0/z/new"):
        broker.restored()


def test_records_without_their_claim_are_never_an_empty_partition() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    log = broker.logs[STATE]
    for lost in ("c", "cm"):
        broker.logs[STATE] = [record for record in log if (parse_key(record.key) or 0)[1] not in lost]  # type: ignore[index]
        with pytest.raises(StateLost, match="claim"):
            broker.restored()


def test_a_manifest_of_another_partition_is_no_state() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    moved = Broker()
    moved.logs[STATE] = [replace(r, key=checked_key("9" + r.key[1:-9].decode())) for r in broker.logs[STATE]]
    written = len(moved.logs[STATE])
    second, restored = moved.restored()
    assert (words(second), restored.corrupt) == ({}, written)


def test_a_reader_that_stops_early_concludes_nothing() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    broker.short = 1
    with pytest.raises(LogIncomplete):
        broker.restored()


# -- positions


def test_a_source_that_ends_before_the_state_is_refused() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    broker.bounds["panes"] = (0, 3)
    with pytest.raises(InputLost, match=r"has lost its end: .* 0 to 3, the state has read to 4.*on_data_loss"):
        broker.restored()


def test_a_topic_of_another_id_is_refused_also_when_it_has_grown_past_the_position() -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 50, "id-1", "p.panes")
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    assert owner.topics == {"panes": "id-1"}
    broker.bounds["panes"] = (0, 5_000, "id-2", "p.panes")
    live = broker.live()
    with pytest.raises(InputLost, match=r"p\.panes-0 .* was id-1 and is id-2; .* 0 to 5000, .* read to 1\b"):
        broker.restored()
    assert broker.live() == live


@pytest.mark.parametrize(("now", "to"), [((7, 90, "id-2"), 7), ((0, 0, "id-2"), 0), ((0, 1, "id-1"), 1)])
def test_reset_is_a_decision_and_goes_on_in_the_log_that_is_there(now, to) -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 50, "id-1", "p.panes")
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"), ("b", b"2"))
    broker.bounds["panes"] = (*now, "p.panes")
    second, restored = broker.restored(on_data_loss="reset")
    assert second.vector == restored.vector == {"panes": to}
    assert second.topics == {"panes": now[2]}
    assert "p.panes-0" in restored.losses[0]
    body = {"from": 2, "to": to, "end": now[1], "was": "id-1", "is": now[2]}
    (copy,) = [decode_decision(record.value or b"").decision for record in broker.logs["journal"]]
    assert (copy.kind, copy.body) == ("reset", {"panes": body})
    third, restored = broker.restored(on_data_loss="reset")
    assert restored.losses == ()
    assert third.decided == 1


def test_a_state_topic_that_was_emptied_is_no_empty_partition() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    broker.logs[STATE].clear()
    with pytest.raises(StateLost, match="made anew or emptied"):
        broker.restored()
    with pytest.raises(StateLost, match="made anew"):
        say(broker, owner, ("b", b"2"))


def test_no_snapshot_is_written_once_the_topic_is_another() -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 50, "id-1", "p.panes")
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    broker.bounds["panes"] = (0, 50, "id-2", "p.panes")
    live = broker.live()
    with pytest.raises(InputLost, match="was id-1 and is id-2"):
        say(broker, owner, ("b", b"2"))
    assert owner.dead
    assert broker.live() == live


def test_a_source_that_begins_later_is_a_gap_in_the_journal() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("a", b"1"))
    broker.bounds["panes"] = (20, 50)
    second, restored = broker.restored()
    assert (second.vector, restored.gap, second.decided) == ({"panes": 20}, {"panes": 16}, 1)
    assert b'"kind":"gap"' in (broker.logs["journal"][0].value or b"")
    assert broker.restored()[1].gap == {}


def test_what_a_claim_decided_reaches_the_stage_once_however_often_its_owner_dies_before_it_has_saved() -> None:
    """The gap is in no blob until the first snapshot: every owner is told of it till then, and none after it."""

    class Told(Words):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[int] = []

        def decide(self, decision: Decision) -> None:
            self.told.append(decision.number)

        def changed_blobs(self) -> dict[str, bytes | None]:
            return super().changed_blobs() | {"told": bytes(self.told)}

        def load(self, blobs: Mapping[str, bytes]) -> None:
            super().load({name: blob for name, blob in blobs.items() if name != "told"})
            self.told = list(blobs.get("told", b""))

    def restored(broker: Broker) -> PartitionOwner:
        owner = broker.owner()
        owner.stage = Told()
        broker.drive(owner.restore())
        return owner

    broker = Broker()
    first = restored(broker)
    say(broker, first, ("a", b"1"))
    broker.bounds["panes"] = (20, 50)
    for _ in range(3):  # each dies before its first snapshot
        owner = restored(broker)
        assert owner.stage.told == [1]  # type: ignore[attr-defined]
    broker.bounds["panes"] = (30, 50)
    owner = restored(broker)
    assert owner.stage.told == [1, 2]  # type: ignore[attr-defined]
    broker.drive(owner.snapshot())
    owner = restored(broker)
    assert owner.stage.told == [1, 2]  # type: ignore[attr-defined]
    owner.vector["panes"] = 50
    owner.decide("tick", {})
    steps = owner.snapshot()  # dies between the manifest, whose blobs hold the decision, and the journal
    effect = next(steps)
    while effect.step != "snapshot.7-journal":
        effect = steps.send(broker.execute(effect))
    steps.close()
    assert restored(broker).stage.told == [1, 2, 3]  # type: ignore[attr-defined]


def test_the_commit_names_where_a_restore_may_begin_and_a_wrong_hint_is_noticed() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    for turn in range(5):
        say(broker, owner, ("a", str(turn).encode()))
    second, _ = broker.restored()
    say(broker, second, ("a", b"9"))
    broker.reads.clear()
    third, _ = broker.restored()
    assert broker.reads[0] is not None
    assert broker.reads[0] > 5
    assert None not in broker.reads
    broker.commits.append(({}, snapshot_format.commit_metadata(broker.end(STATE) - 1)))
    broker.drive(third.snapshot())
    broker.commits.append(({}, snapshot_format.commit_metadata(broker.end(STATE) - 1)))
    fourth, _ = broker.restored()
    assert broker.reads.count(None) == 1  # manifest without its claim: from the beginning
    assert words(fourth) == {"a": b"9"}


def test_a_blob_that_lies_far_back_is_written_again() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    say(broker, owner, ("old", b"x"))
    first = [record.key for record in broker.logs[STATE] if b"/old#" in record.key]
    for _ in range(8):
        say(broker, owner, ("big", bytes(FAR_FLOOR_BYTES // 3)))
    again = [record.key for record in broker.logs[STATE] if b"/old#" in record.key and record.value is not None]
    assert again[0] == first[0]
    assert 2 <= len(again) <= 4
    assert words(broker.restored()[0])["old"] == b"x"


def test_a_long_epoch_is_restored_from_near_its_end() -> None:
    """Else the claim would hold the start of the log, and a restore would read all that its owner ever wrote."""
    broker = Broker()
    broker.bounds["panes"] = (0, 500)
    owner, _ = broker.restored()
    size = FAR_FLOOR_BYTES // 5
    for _ in range(40):
        say(broker, owner, ("big", bytes(size)))
    claims = [record.offset for record in broker.logs[STATE] if parse_key(record.key)[1] == "c"]  # type: ignore[index]
    assert len(claims) > 3
    second, restored = broker.restored()
    assert (words(second), restored.whole, restored.corrupt) == ({"big": bytes(size)}, False, 0)
    assert second.epoch == owner.epoch + 1
    assert restored.read_bytes <= allowed(restored, FAR_FLOOR_BYTES)
    assert restored.read_bytes < 40 * size / 4


def allowed(restored: Restored, floor_bytes: int) -> int:
    """What a restore may read, as README says it."""
    live = max(2 * restored.largest_live_bytes, floor_bytes)
    return live + 2 * restored.interval_bytes + restored.claims_bytes + restored.unfinished_bytes


class DiedError(Exception):
    pass


def die_before(broker: Broker, owner: PartitionOwner, step: str, *batch: tuple[str, Any]) -> None:
    """Take the batch in, and die within the snapshot."""

    def die(effect: Effect) -> None:
        if effect.step == step:
            raise DiedError

    owner.apply("panes", batch, owner.vector["panes"] + len(batch))
    with pytest.raises(DiedError):
        broker.drive(owner.snapshot(), die)


def owner_of_forty(broker: Broker) -> PartitionOwner:
    """An owner of 40 words of 1,000 bytes, each snapshot of which wrote ten."""
    broker.bounds["panes"] = (0, 10**6)
    owner, _ = broker.restored()
    for turn in range(12):
        say(broker, owner, *((f"w{n}", bytes(1000)) for n in range(turn % 4, 40, 4)))
    return owner


def test_owners_that_die_within_a_snapshot_leave_what_a_restore_reads_and_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_writer, "FAR_FLOOR_BYTES", 1000)
    broker = Broker()
    owner = owner_of_forty(broker)
    _, plain = broker.restored()
    for deaths in range(1, 7):
        owner, _ = broker.restored()
        before = len(broker.logs[STATE])
        die_before(broker, owner, "snapshot.5-manifest", *((f"w{n}", bytes(1000)) for n in range(10)))
        left = sum(snapshot_format.record_bytes(r.key, r.value) for r in broker.logs[STATE][before:])
        _, restored = broker.restored()
        assert restored.unfinished == deaths <= restored.owners_before
        assert restored.unfinished_bytes - plain.unfinished_bytes == left
        assert restored.read_bytes <= allowed(restored, 1000)
        assert restored.interval_bytes == plain.interval_bytes  # of whole snapshots only
        plain = restored
    assert restored.read_bytes > 2 * 40_000 + restored.interval_bytes + restored.claims_bytes


def test_what_owners_left_unfinished_moves_the_start_of_the_log_like_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that carried on the old count would hide what stands between: old blobs would stay in place behind it."""
    monkeypatch.setattr(state_writer, "FAR_FLOOR_BYTES", 1000)
    broker = Broker()
    owner = owner_of_forty(broker)
    for _ in range(8):
        die_before(broker, owner, "snapshot.5-manifest", *((f"w{n}", bytes(1000)) for n in range(20)))
        owner, _ = broker.restored()
    say(broker, owner, ("w0", bytes(1000)))
    _, restored = broker.restored()
    assert restored.unfinished == 0
    assert restored.read_bytes <= 2 * 40_000 + 2 * restored.interval_bytes + restored.claims_bytes


@pytest.mark.parametrize("committed", [True, False])
def test_a_state_that_has_shrunk_is_read_from_where_the_large_one_began(
    monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    monkeypatch.setattr(state_writer, "FAR_FLOOR_BYTES", 1000)
    broker = Broker()
    owner = owner_of_forty(broker)
    gone = [(f"w{n}", None) for n in range(3, 40)]
    if committed:
        say(broker, owner, *gone)
    else:
        die_before(broker, owner, "snapshot.6-commit", *gone)
    owner, restored = broker.restored()
    assert (restored.live_bytes, restored.largest_live_bytes) == (3_000, 40_000)
    assert 2 * restored.live_bytes + restored.interval_bytes + restored.claims_bytes < restored.read_bytes
    assert restored.read_bytes <= allowed(restored, 1000)
    for _ in range(4):
        say(broker, owner, ("w0", bytes(1000)))
    _, later = broker.restored()
    assert later.largest_live_bytes == 3_000
    assert later.read_bytes <= allowed(later, 1000)
    assert later.read_bytes < restored.read_bytes / 2


def test_a_rival_of_a_long_epoch_loses_also_where_only_the_second_claim_is_left() -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 500)
    broker.restored()
    rival = broker.owner()
    steps = rival.restore()
    effect = next(steps)
    while effect.step != "restore.4-claim":  # it has read the log before the first claim of this epoch
        effect = steps.send(broker.execute(effect))
    second, _ = broker.restored()
    steps.send(broker.execute(effect))  # a claim of the same epoch, behind the winner's
    for _ in range(12):
        say(broker, second, ("big", bytes(FAR_FLOOR_BYTES // 5)))
    last = {record.key: record.offset for record in broker.logs[STATE]}
    broker.logs[STATE] = [record for record in broker.logs[STATE] if last[record.key] == record.offset]
    third, _ = broker.restored()
    assert third.epoch == second.epoch + 1
    assert words(third) == words(second)


def test_first_decisions_need_no_catching_up_and_a_state_that_is_not_empty_has_none() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    owner.begin("plan", {"plan": "first"})
    assert owner.take_outputs() == ()  # held: the manifest that would show the decision is never written
    second, restored = broker.restored()
    assert (restored.blobs, second.may_decide()) == (0, False)
    assert second.begin("plan", {"plan": "other"}).number == 1
    say(broker, second, ("a", b"1"))
    assert [decode_decision(record.value or b"").decision.body for record in broker.logs["journal"]] == [
        {"plan": "other"}
    ]
    for late in (second, broker.restored()[0]):
        with pytest.raises(NotReady, match="not empty"):
            late.begin("plan", {"plan": "again"})


def test_large_blobs_lie_in_chunks_and_come_back_whole() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    data = bytes(range(256)) * 9_000
    say(broker, owner, ("a", data), ("empty", b""))
    assert max(len(record.value or b"") for record in broker.logs[STATE]) <= CHUNK_BYTES
    assert words(broker.restored()[0]) == {"a": data, "empty": b""}


def test_more_blobs_than_a_manifest_can_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    broker.bounds["panes"] = (0, 500)
    owner, _ = broker.restored()
    monkeypatch.setattr("stream.claims.MANIFEST_BYTES_MAX", 2_000)
    with pytest.raises(ManifestTooLarge, match="100 blobs"):
        say(broker, owner, *[(f"b{n}", b"") for n in range(100)])


def test_one_generator_at_a_time_and_writers_without_a_slash() -> None:
    broker = Broker()
    owner, _ = broker.restored()
    steps = owner.snapshot()
    next(steps)
    with pytest.raises(RuntimeError, match="one generator"):
        next(owner.snapshot())
    with pytest.raises(ValueError, match="slash"):
        PartitionOwner("monitor", 0, Words(), "a/b", sources=("panes",))
