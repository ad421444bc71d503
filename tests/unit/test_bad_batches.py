"""Batches that must not be opened (too large) or cannot be (damaged), names that look alike, and what never reaches a chunk."""

from __future__ import annotations

import dataclasses
import gzip
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import codec
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream.chunks import Chunk, Plain, RawBatch, read_batches, records_of, refused_batch, split
from stream.cli import app
from stream.config_errors import ConfigError
from stream.config_loader import load_config
from stream.damage import PAUSES_S, TRIES, Damage
from stream.deadletter import letter_writer
from stream.decode import NATIVE, Layout, decode, decode_strict
from stream.letters import letter_of, why_not
from stream.look_alikes import look_alikes
from stream.metrics import LABEL_LENGTH_MAX, Metrics
from stream.raw_fetch import MessageSet, RawPartitionRecords
from stream.transport import READ_COMMITTED
from stream.unpack import BATCH_BYTES_MAX, HEAD_BYTES, UNPACK, DamagedError, TooLargeError
from tests.unit.bad_input_rows import GOOD_LINE, GOOD_MS

LAYOUT = Layout.compile(NATIVE, ["fraud"], ["features.amount"])
PACK = {1: gzip.compress, 2: codec.snappy_encode, 3: codec.lz4_encode, 4: codec.zstd_encode}
NAMES = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
BOMB_BYTES = 200_000_000


def batch(base: int, values: list[bytes], compression: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 30)
    for at, value in enumerate(values):
        assert builder.append(at, GOOD_MS, b"key", value, []) is not None
    return base.to_bytes(8, "big") + bytes(builder.build())[8:]


def pieces(data: bytes, damage: Damage, position: int = 0) -> tuple[list[object], int]:
    """What the fetcher gets of a message set, and where it goes on."""
    place, held = TopicPartition("t", 0), MessageSet(data)
    records = RawPartitionRecords((True, damage), place, held, None, position, None, None, True, READ_COMMITTED)
    return list(records), records.next_fetch_offset


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(UNPACK)), st.binary(max_size=3000), st.integers(1, 60))
def test_what_is_within_the_limit_comes_back_whole(compression: int, data: bytes, times: int) -> None:
    body = data * times
    packed = bytes(PACK[compression](body))
    assert UNPACK[compression](packed, len(body) or 1) == body
    if len(body) > 1:
        with pytest.raises(TooLargeError) as caught:
            UNPACK[compression](packed, len(body) - 1)
        assert body.startswith(caught.value.head)


def test_snappy_in_xerials_blocks() -> None:
    body = b"abc" * 100_000
    packed = codec.snappy_encode(body, xerial_compatible=True, xerial_blocksize=1 << 15)
    assert UNPACK[2](packed, len(body)) == body
    with pytest.raises(TooLargeError) as caught:
        UNPACK[2](packed, 100_000)
    assert caught.value.head == body[:HEAD_BYTES]


def test_gzip_in_members() -> None:
    packed = b"".join(gzip.compress(part) for part in (b"ab", b"", b"c" * 10))
    assert UNPACK[1](packed, 12) == b"abcccccccccc"
    with pytest.raises(TooLargeError) as caught:
        UNPACK[1](packed, 11)
    assert caught.value.head == b"abcccccccccc"
    with pytest.raises(DamagedError, match="more than"):
        UNPACK[1](gzip.compress(b"") * 2_000, 10)


@pytest.mark.parametrize("compression", [pytest.param(at, id=f"B33-{name}") for at, name in NAMES.items()])
def test_what_is_not_of_its_codec_is_damaged(compression: int) -> None:
    packed = bytes(PACK[compression](b"some text, some text"))
    for wrong in (b"", b"\x00" * 30, packed[:-9], b"\xff" + packed[1:]):
        with pytest.raises((DamagedError, TooLargeError)):  # snappy says its length first, and it may say anything
            UNPACK[compression](wrong, 1000)


@pytest.fixture(scope="module")
def bombs() -> dict[int, bytes]:
    """One record of 200 MB each; snappy cannot shrink so far."""
    values = [b'{"a":"' + b" " * BOMB_BYTES + b'"}']
    return {at: batch(7, values, at) for at in (1, 4)}


@pytest.mark.parametrize("compression", [pytest.param(at, id=f"B31-{NAMES[at]}") for at in (1, 4)])
def test_a_bomb_is_one_dead_letter_and_takes_bounded_memory(bombs: dict[int, bytes], compression: int) -> None:
    bomb, good = bombs[compression], batch(8, [GOOD_LINE])
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    found, following = pieces(bomb + good, Damage(), 7)
    assert following == 8  # one bomb a fetch
    behind, following = pieces(bomb + good, Damage(), following)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * BATCH_BYTES_MAX  # the body and its parts, or the body and a copy; never the 200 MB
    refused, kept = *found, *behind
    assert isinstance(refused, Plain)
    assert isinstance(kept, RawBatch)
    assert (refused.start_offset, refused.next_offset, following) == (7, 8, 9)
    (part,) = split(records_of(Chunk("t", 0, (refused, kept), 0), 7), 4000)
    for tier in (decode, decode_strict):
        columns = tier(part, LAYOUT)
        assert columns.offset.tolist() == [8]
        (reject,) = columns.rejects
        assert (reject.offset, reject.code) == (7, "too_large")
    letter = letter_writer(topic="t", partition=0, config_hash="c", app_version="1")(reject)
    assert b"offsets 7 to 7" in dict(letter.headers)["dlq.detail"]
    assert len(letter.value or b"") == HEAD_BYTES


def test_b31_one_fetch_of_many_batches_unpacks_little_and_loses_none() -> None:
    """A megabyte may hold hundreds of batches, each of them just below batch_bytes_max."""
    data = b"".join(batch(at, [b" " * (BATCH_BYTES_MAX - 1000)], 4) for at in range(4))
    assert len(data) < 50_000
    position = 0
    for at in range(4):
        found, position = pieces(data, Damage(), position)
        assert sum(len(piece.payload) for piece in found) <= BATCH_BYTES_MAX  # type: ignore[attr-defined]
        assert position == at + 1


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def unknown_codec(data: bytes) -> bytes:
    """The attributes say compression 7; the checksum is right."""
    from crc32c import crc32c

    changed = bytearray(data)
    changed[22] |= 7
    changed[17:21] = crc32c(bytes(changed[21:])).to_bytes(4, "big")
    return bytes(changed)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [pytest.param(flipped, "wrong checksum", id="B33-checksum"), pytest.param(unknown_codec, "unknown compression 7", id="B33-codec")],
)  # fmt: skip
def test_a_damaged_batch_makes_its_partition_wait_and_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, spoil, why: str
) -> None:
    data = batch(0, [GOOD_LINE]) + spoil(batch(1, [GOOD_LINE, GOOD_LINE])) + batch(3, [GOOD_LINE])
    faults: list[tuple] = []
    damage = Damage()
    damage.on_fault = lambda *fault: faults.append(fault)
    clock = 100.0
    monkeypatch.setattr("stream.raw_fetch.time.monotonic", lambda: clock)
    found, following = pieces(data, damage)
    assert ([piece.next_offset for piece in found], following) == ([1], 1)  # type: ignore[attr-defined]
    for tries in range(2, TRIES + 4):
        assert damage.waiting(clock) == {("t", 0)}
        clock += PAUSES_S[-1]
        assert damage.waiting(clock) == set()
        assert pieces(data, damage, 1) == ([], 1)
        assert faults[-1][:2] == (("t", 0), tries)
        assert why in str(faults[-1][2])
    assert pieces(batch(1, [GOOD_LINE, GOOD_LINE]), damage, 1)[1] == 3  # it was the network: nothing is lost


def test_b33_a_damaged_batch_may_be_given_up_for_one_dead_letter() -> None:
    data = flipped(batch(1, [GOOD_LINE, GOOD_LINE])) + batch(3, [GOOD_LINE])
    damage = Damage(frozenset(["t"]))
    for _ in range(TRIES - 1):
        assert pieces(data, damage, 1) == ([], 1)
    (refused,), following = pieces(data, damage, 1)
    assert following == 3
    columns = decode(records_of(Chunk("t", 0, (refused,), 0), 1), LAYOUT)  # type: ignore[arg-type]
    assert [(reject.offset, reject.code) for reject in columns.rejects] == [(1, "damaged_batch")]
    assert columns.rejects[0].value == data[: len(columns.rejects[0].value or b"")]
    assert "offsets 1 to 2" in columns.rejects[0].detail
    assert columns.next_offset == 3
    other = Damage(frozenset(["another"]))
    assert all(pieces(data, other, 1) == ([], 1) for _ in range(TRIES + 5))


@pytest.mark.parametrize("flip", [(26, 6), (26, 0), (25, 3), (24, 0), (70, 1)])
def test_b33_a_damaged_batch_does_not_say_where_the_log_goes_on(flip: tuple[int, int]) -> None:
    """Its last offset's delta is at 23 to 26: believed, it would pass good events over, or stop before the batch's end."""
    good, at = batch(1, [GOOD_LINE, GOOD_LINE]), flip[0]
    spoiled = good[:at] + bytes((good[at] ^ 1 << flip[1],)) + good[at + 1 :]
    damage = Damage(frozenset(["t"]))
    for _ in range(TRIES - 1):
        assert pieces(spoiled + batch(3, [GOOD_LINE]), damage, 1) == ([], 1)
    assert pieces(spoiled + batch(3, [GOOD_LINE]), damage, 1)[1] == 3
    alone = [pieces(spoiled, damage, 1)[1] for _ in range(TRIES)]  # the last of the log: only its own fields can tell
    assert alone[-1] == (3 if at == 70 else 1)


@pytest.mark.parametrize("reason", ["too_large", "damaged_batch"])
def test_b33_the_beginning_of_a_batch_is_not_published_again_as_an_event(reason: str) -> None:
    piece = refused_batch(1, (1, 4, GOOD_MS), b"\x01" * HEAD_BYTES, (reason, "why"))
    (reject,) = decode(records_of(Chunk("t", 0, (piece,), 0), 1), LAYOUT).rejects
    output = letter_writer(topic="t", partition=0, config_hash="c", app_version="1")(reject)
    place = {"partition": 0, "offset": 0, "timestamp": 1}
    letter = letter_of(SimpleNamespace(key=output.key, value=output.value, headers=output.headers, **place))
    assert letter is not None
    assert why_not(letter, {"t": 1}) == "payload truncated: the original bytes are not in the letter"
    assert "value_sha256" not in letter.facts


def test_b33_what_stands_before_the_position_is_in_no_dead_letter() -> None:
    data, damage = flipped(batch(10, [GOOD_LINE] * 5)), Damage(frozenset(["t"]))
    found = next(found for found, _ in (pieces(data, damage, 12) for _ in range(TRIES)) if found)
    columns = decode(records_of(Chunk("t", 0, tuple(found), 0), 12), LAYOUT)  # type: ignore[arg-type]
    assert [reject.offset for reject in columns.rejects] == [12]
    assert "offsets 12 to 14" in columns.rejects[0].detail


def test_b58_control_batches_only_move_the_position() -> None:
    assert READ_COMMITTED == "read_committed"
    control = bytearray(batch(5, [b""]))
    control[22] |= 0x20
    (hole,) = read_batches(bytes(control), 5, UNPACK, check_crc=False)
    assert (hole.count, hole.next_offset) == (0, 6)


def test_b62_a_hole_between_batches_is_passed() -> None:
    found, following = pieces(batch(0, [GOOD_LINE]) + batch(900, [GOOD_LINE]), Damage())
    assert [(piece.start_offset, piece.next_offset) for piece in found] == [(0, 1), (1, 901)]  # type: ignore[attr-defined]
    assert following == 901


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(("Amount", "amount"), id="B20-case"),
        pytest.param(("e\u0301", "\u00e9"), id="B20-composition"),
        pytest.param(("amount", "amount "), id="B20-trailing-space"),
        pytest.param(("amo\u200bunt", "amount"), id="B20-zero-width"),
        pytest.param(("a\u00a0b", "a b"), id="B20-no-break-space"),
    ],
)
def test_names_that_look_alike(pair: tuple[str, str]) -> None:
    assert look_alikes([*pair, "other", "amount_2"]) == [tuple(sorted(pair))]


def test_look_alikes_are_few() -> None:
    assert look_alikes(["a", "b", "a_b", "a.b", "a", "ab"]) == []


CONFIG = """\
kafka: {{bootstrap_servers: a:1}}
topics: {{predictions: {topic}}}
models: {{fraud: {{reference: {{first: 5000}}, targets: {{{targets}}}}}}}
{more}
"""


def written(folder: Path, topic: str = "p", targets: str = "", more: str = "") -> Path:
    path = folder / "monitor.yaml"
    path.write_text(CONFIG.format(topic=topic, targets=targets, more=more))
    return path


def test_b20_explain_warns_of_look_alikes(tmp_path: Path) -> None:
    path = written(tmp_path, targets='"amount": {}, "Amount ": {}')
    result = CliRunner().invoke(app, ["explain", "--config", str(path)])
    assert result.exit_code == 0
    assert "models.fraud.targets: 'Amount ' and 'amount' look alike" in result.stderr
    assert "look alike" not in CliRunner().invoke(app, ["explain", "--config", str(written(tmp_path))]).stderr


def codes(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [dataclasses.replace(problem, file="f").code for problem in caught.value.problems]


@pytest.mark.parametrize("role", ["dead-letters", "alerts", "panes", "state.collector"])
def test_b60_driftlines_own_topics_are_no_input(tmp_path: Path, role: str) -> None:
    assert codes(written(tmp_path, f"driftline.{role}")) == ["DL-C021"]


@pytest.mark.parametrize("pattern", ['"driftline.*"', '"^p.+"', '"p|driftline.alerts"', '"[a-z]+"'])
def test_b61_a_pattern_is_no_topic(tmp_path: Path, pattern: str) -> None:
    assert codes(written(tmp_path, pattern)) == ["DL-C014"]


YAML = {
    "B72-bomb-of-aliases": ("a: &a [1]\nb: &b [*a, *a]\n" * 1, None),
    "B72-duplicate-key": ("dedup: true\ndedup: false", "DL-C005"),
    "B72-no": ("dedup: no", "DL-C011"),
    "B72-tab": ("metrics:\n\tport: 1", "DL-C004"),
    "B72-python-object": ("prefix: !!python/object/apply:os.system [ls]", "DL-C006"),
    "B72-merge-key": ("metrics: {<<: {port: 1}}", "DL-C006"),
    "B72-unknown-key": ("metrics: {prot: 1}", "DL-C012"),
    "B72-missing-environment": ('prefix: x.\nunknown_secret: "${NOT_THERE}"', "DL-C012"),
    "B72-number-as-text": ('monitors: "8"', "DL-C011"),
}


@pytest.mark.parametrize(("more", "code"), [pytest.param(*case, id=name) for name, case in YAML.items()])
def test_b72_yaml_traps(tmp_path: Path, more: str, code: str | None) -> None:
    found = codes(written(tmp_path, more=more))
    assert found
    if code is not None:
        assert set(found) == {code}


def test_b72_exponents_are_numbers_and_windows_lines_are_lines(tmp_path: Path) -> None:
    path = written(tmp_path, more="defaults: {tolerance: 1e-3}")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load_config(path).defaults.tolerance == 0.001


def test_b72_ten_megabytes(tmp_path: Path) -> None:
    assert codes(written(tmp_path, more="# " + "x" * 10_000_000)) == ["DL-C002"]


def test_b29_hostile_labels_stay_short_and_do_not_break_the_scrape() -> None:
    metrics = Metrics()
    for hostile in ('a"b', "a\\b", "a\nb", "\ud800", "x" * 20_000, "\x1b[31m"):
        metrics.set("windows_total", 1, model=hostile)
    text = metrics.exposition().decode()
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines() if "windows_total{" in line) < LABEL_LENGTH_MAX + 60


def test_pauses_grow_and_the_last_one_is_for_ever() -> None:
    assert list(PAUSES_S) == sorted(PAUSES_S)
    assert len(PAUSES_S) >= TRIES
