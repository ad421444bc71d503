"""Everything that is written to a state log or the journal comes back as it was, or is refused."""

from __future__ import annotations

import crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.container import ContainerError
from stream.journal import JournalError, decode_decision, encode_decision, fold
from stream.snapshot_format import (
    BlobRef,
    Manifest,
    checked_key,
    commit_metadata,
    decode_manifest,
    decode_outputs,
    encode_manifest,
    encode_outputs,
    key_is_whole,
    metadata_offset,
    parse_base,
    parse_key,
)
from stream.stage import Decision, Output
from stream.topics import TopicRole

outputs = st.builds(
    Output,
    st.sampled_from(["panes", "windows", "alerts"]),
    st.none() | st.binary(max_size=9),
    st.none() | st.binary(max_size=99),
    st.none() | st.integers(0, 99),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3).map(tuple),
    st.booleans(),
)
decisions = st.builds(
    Decision,
    st.integers(1, 1 << 40),
    st.sampled_from(["tick", "plan"]),
    st.dictionaries(st.sampled_from(["predictions", "panes"]), st.integers(0, 1 << 60), max_size=2),
    st.dictionaries(
        st.text(max_size=5), st.integers(-(1 << 62), 1 << 62) | st.text(max_size=5) | st.booleans(), max_size=3
    ),
)
refs = st.builds(
    BlobRef, st.text(max_size=9), st.integers(0, 1 << 40), st.integers(0, (1 << 32) - 1),
    st.lists(st.integers(0, 1 << 50), max_size=3).map(tuple), st.integers(0, 1 << 50),
)  # fmt: skip
manifests = st.builds(
    Manifest, st.sampled_from(["collector", "monitor"]), st.integers(0, 99), st.integers(1, 99_999_999),
    st.sampled_from(["w1.0", "w2.13"]), st.integers(0, 1 << 40),
    st.dictionaries(st.text(max_size=5), st.integers(0, 1 << 60), max_size=2), st.integers(0, 1 << 40),
    st.lists(decisions, max_size=2).map(tuple), st.dictionaries(st.text(max_size=9), refs, max_size=3), st.integers(0, 1 << 50),
    st.sampled_from(["", "3:w1.0:7"]), st.sampled_from(["", "abc"]),
)  # fmt: skip


@given(st.lists(outputs, max_size=5))
def test_held_outputs_come_back_in_order(held: list[Output]) -> None:
    assert decode_outputs(encode_outputs(held)) == held


def test_a_role_is_stored_as_text() -> None:
    (back,) = decode_outputs(encode_outputs([Output(TopicRole.PANES, None, b"x", 0)]))
    assert (back.topic, type(back.topic)) == ("panes", str)


@given(manifests, st.data())
def test_manifests_come_back_and_damage_is_seen(manifest: Manifest, data: st.DataObject) -> None:
    encoded = encode_manifest(manifest)
    assert decode_manifest(encoded) == manifest
    key = parse_key(manifest.key)
    assert key is not None
    assert (key.partition, key.epoch, key.writer, key.sequence, key.decided) == (
        manifest.partition, manifest.epoch, manifest.writer, manifest.sequence, manifest.decided,
    )  # fmt: skip
    place = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ContainerError):
        decode_manifest(
            encoded[:place] + bytes([encoded[place] ^ data.draw(st.integers(1, 255))]) + encoded[place + 1 :]
        )
    with pytest.raises(ContainerError):
        decode_manifest(encoded[:place])


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"0",
        b"0/x/1/w/0/0",
        b"a/m/1/w/0/0",
        b"0/m/1/w/0/x",
        b"0/b/1/w/0/name",
        b"\xff/m/1/w/0/0",
        b"0/c/1/w/0",
        b"0/c/1/w/0/0",
    ],
)
def test_foreign_keys(key: bytes) -> None:
    assert parse_key(key) is None
    assert parse_key(key + b"~%08x" % crc32c.crc32c(key)) is None


def test_no_flip_turns_a_key_into_another() -> None:
    for text in ("3/c/00000002/w.0/0/5/1:v.0:9", "3/m/00000002/w.0/7/5", "3/b/00000002/w.0/7/name#0"):
        key = checked_key(text)
        assert parse_key(key) is not None
        for place in range(len(key)):
            for pattern in range(1, 256):
                flipped = key[:place] + bytes([key[place] ^ pattern]) + key[place + 1 :]
                assert not key_is_whole(flipped)
            assert not key_is_whole(key[:place])


def test_the_base_of_a_claim() -> None:
    assert parse_base("3:w.0:7") == (3, "w.0", 7)
    assert [parse_base(base) for base in ("", "3", "3:w", "x:w:1", "3:w:1:2")] == [None] * 5


def test_a_blob_name_may_hold_slashes_and_signs() -> None:
    ref = BlobRef("3/b/00000001/w.0/7/pane/-9/a#b", 0, 0, (4, 5), 0)
    key = parse_key(ref.keys[1])
    assert key is not None
    assert (key.kind, key.name, key.chunk) == ("b", "pane/-9/a#b", 1)


@pytest.mark.parametrize("metadata", ["", "state:", "state:-1", "state:x", "7", "other:7"])
def test_foreign_metadata_says_nothing(metadata: str) -> None:
    assert metadata_offset(metadata) is None


@given(st.integers(0, 1 << 62))
def test_metadata(offset: int) -> None:
    assert metadata_offset(commit_metadata(offset)) == offset


@given(decisions)
def test_journal_records_come_back_and_equal_decisions_have_equal_bytes(decision: Decision) -> None:
    output = encode_decision("collector", 3, decision)
    record = decode_decision(output.value or b"")
    assert (record.stage, record.partition, record.decision) == ("collector", 3, decision)
    turned = Decision(decision.number, decision.kind, dict(reversed(decision.position.items())), decision.body)
    assert encode_decision("collector", 3, turned) == output


def test_fold_drops_repeats_and_refuses_contradictions_and_holes() -> None:
    def copy(number: int, kind: str = "tick") -> bytes:
        return encode_decision("monitor", 0, Decision(number, kind, {"panes": number}, {})).value or b""

    assert [d.number for d in fold([copy(5), copy(4), copy(5)])["monitor", 0]] == [4, 5]
    with pytest.raises(JournalError, match="plan"):
        fold([copy(1), copy(1, "plan")])
    with pytest.raises(JournalError, match="hole"):
        fold([copy(1), copy(3)])


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"stage":1}', b"{"])
def test_no_journal_record(value: bytes) -> None:
    with pytest.raises(JournalError):
        decode_decision(value)
