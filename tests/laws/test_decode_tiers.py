# ruff: noqa: SIM905, RUF005 - lists of words are read as words
"""Both tiers of decoding give the same, on valid, invalid and damaged events; the strict one agrees with orjson.

A longer run:  python tests/laws/test_decode_tiers.py --events 1000000 --seed 7
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import time

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.columns import Columns, Records, Tag
from stream.decode import Layout, Mapping, decode, decode_strict, records_from_lines
from stream.kernels.framing import join_records
from stream.mapping import OUTCOME
from stream.strict_json import RefusedError, parse

NUMBERS = (
    "0 -0 -0.0 1 -1 7 129.5 0.1 1e5 1E-7 1e+05 123456789 1e22 1e23 9007199254740992 9007199254740993 -9007199254740993.0 "
    "18446744073709551615 18446744073709551616 99999999999999999999 1234567890123456789 0.1234567890123456789 "
    "0.00001234567890123456789 0.000000000000000000000000000001 1e400 -1e400 1e-400 5e-324 2.2250738585072011e-308 "
    "1.7976931348623157e308 1.7976931348623159e308 1e99999 1e-99999 1763806503 1763806503.12 1763806503120 1763806503.1239 "
    "1763806503120000 1763806503120000000 1.76380650312e9 315532800000 315532799999 7258118400000 7258118399999.9 "
    "176380650312e1 1.7e20 8.5e37 NaN Infinity -Infinity 1763806503120.0000000000000000001"
).split()
NO_NUMBERS = "01 +1 1. - .5 0x10 1_000 --1 1e 1e+ -NaN Nan nan infinity -Inf 1e5.5 00 -01 1..2 tru nul True".split()
TEXTS = (
    "",
    "DE",
    "fraud",
    "other",
    "2026-11-20",
    "naïve 😀 ١٢",
    "x" * 239,
    "x" * 240,
    "x" * 241,
    "é" * 120,
    "y" * 257,
    "z" * 513,
    "1.0",
    "NaN",
    "null",
)
RAW_TEXTS = (
    rb"a\nb",
    rb"\u0046raud",
    rb"\ud83d\ude00",
    rb"\ud800",
    rb"\ude00\ud83d",
    rb"\ud83dx",
    rb"\ude00\ude00",
    rb"\ud83d\ud83d",
    rb"\ud83d\u0041",
    rb"\u00zz",
    rb"\u12",
    rb"\x",
    rb"\"quoted\"",
    rb"\\",
    rb"\u0000",
    b"\x00",
    b"\x1f",
    b"tab\t",
    b"\x7f",
    b"\xff",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf0\x9f\x98\x80",
    b"\xe2\x82",
    b"\xc3",
    b"12345678\x80",
    b"1234567\xc3\xa9",
)
TIMES = (
    "2026-11-22T10:15:03.120Z 2026-11-22T10:15:03Z 2026-11-22t10:15:03z 2026-11-22T10:15:03+05:30 2026-11-22T10:15:03.1-00:30 "
    "2026-11-22T10:15:60Z 2026-11-22T10:15:61Z 2026-11-22T24:00:00Z 2026-11-22T10:15:03 2026-02-29T00:00:00Z 2024-02-29T00:00:00Z "
    "2100-02-29T00:00:00Z 2000-02-29T23:59:59.9999999Z 1979-12-31T23:59:59Z 1980-01-01T00:00:00Z 1980-01-01T00:00:00+00:01 "
    "2199-12-31T23:59:59.999Z 2200-01-01T00:00:00Z 2199-12-31T23:59:59-00:01 0000-01-01T00:00:00Z 9999-12-31T23:59:59Z "
    "2026-W47-7 2026-11-22 2026-11-22T10:15:03.Z 2026-11-22T10:15:03+0530 2026-11-22T10:15:03+24:00 2026-11-22T10:15:03+05:60 "
    "2026-13-01T00:00:00Z 2026-00-10T00:00:00Z 2026-01-32T00:00:00Z 2026-1-1T00:00:00Z 2026-11-22T10:15:03.1234567890123456789Z "
    "20261122T101503Z 1969-07-20T20:17:40Z ١٢٣٤-11-22T10:15:03Z 2026-11-22T10:15:03ZZ"
).split() + ["2026-11-22 10:15:03Z", " 2026-11-22T10:15:03Z", "2026-11-22T10:15:03Z "]
FEATURES = ["amount", "country", "age_days", "a.b", 'quo"te', "naïve", "k" * 241, "n", "back\\slash"]
MODELS = ["fraud", "7", "naïve 😀 ١٢"]
PATHS = [f"features.{name}" for name in FEATURES] + ["prediction", "score", "segments.country", "segments.amount"]

LAYOUTS = {
    "native": Layout.compile(Mapping(), MODELS, PATHS),
    "milliseconds": Layout.compile(Mapping(timestamp_unit="ms"), MODELS, PATHS, with_features=["7"]),
    "seconds": Layout.compile(Mapping(timestamp_unit="s"), MODELS, PATHS),
    "nanoseconds": Layout.compile(Mapping(timestamp_unit="ns", version="=v1"), MODELS, PATHS),
    "record time": Layout.compile(Mapping(timestamp="$record", model="=fraud"), MODELS, PATHS),
    "one object": Layout.compile(
        Mapping(
            prediction_id="features.amount",
            version="features.country",
            segments="features",
            model="=new",
            timestamp_unit="us",
        ),
        MODELS,
        PATHS,
    ),
    "flat": Layout.compile(
        Mapping(features="", segments="", prediction="features.n", scores={"score": "a.b", "b": "n"}),
        MODELS,
        [*PATHS, "features.features", "b"],
    ),
    "empty": Layout.compile(Mapping(), [], []),
    "feedback": Layout.compile(
        Mapping(outcome="score", model_optional=True, prediction="features.n", scores={"score": "a.b"}),
        MODELS,
        [OUTCOME, "prediction", "score"],
    ),
}
RECORD_TIMES = [-1, 0, 315_532_799_999, 1_763_806_503_120, 7_258_118_400_000]


def space(rng: random.Random) -> bytes:
    return (
        rng.choice((b"", b"", b"", b" ", b" ", b"\n\t\r ", b"\x0b", b"\xc2\xa0"))
        if rng.random() < 0.02
        else rng.choice((b"", b" "))
    )


def text(rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return b'"' + b"".join(rng.choice(RAW_TEXTS) for _ in range(rng.randrange(1, 3))) + b'"'
    return b'"' + rng.choice(TEXTS).encode() + b'"'


def number(rng: random.Random) -> bytes:
    choice = rng.random()
    if choice < 0.3:
        return rng.choice(NUMBERS).encode()
    if choice < 0.33:
        return rng.choice(NO_NUMBERS).encode()
    if choice < 0.6:
        return repr(rng.uniform(-1000, 1000) * 10.0 ** rng.randrange(-25, 25)).encode()
    if choice < 0.8:
        return f"{rng.getrandbits(rng.randrange(1, 70))}e{rng.randrange(-330, 310)}".encode()
    return f"{rng.randrange(10**6)}.{rng.randrange(10**4):04}".encode()


def value(rng: random.Random, depth: int = 0) -> bytes:
    choice = rng.random()
    if choice < 0.35:
        return number(rng)
    if choice < 0.65:
        return text(rng)
    if choice < 0.8 or depth > 3:
        return rng.choice((b"null", b"true", b"false"))
    if choice < 0.9:
        return b"[" + b",".join(space(rng) + value(rng, depth + 1) for _ in range(rng.randrange(4))) + b"]"
    return members(rng, [(key(rng), value(rng, depth + 1)) for _ in range(rng.randrange(4))])


def key(rng: random.Random) -> bytes:
    return rng.choice((text(rng), *(quoted(name) for name in FEATURES)))


def quoted(name: str) -> bytes:
    return orjson.dumps(name)


def spelt_otherwise(rng: random.Random, name: bytes) -> bytes:
    """The same key with one letter as an escape; a damaged key where there is none."""
    at = rng.randrange(1, len(name))
    return name[:at] + f"\\u{name[at]:04{rng.choice('xX')}}".encode() + name[at + 1 :] if name[at] < 128 else name


def members(rng: random.Random, pairs: list[tuple[bytes, bytes]]) -> bytes:
    body = b",".join(space(rng) + name + space(rng) + b":" + space(rng) + held + space(rng) for name, held in pairs)
    return b"{" + body + b"}"


def event(rng: random.Random) -> bytes:
    """An event: valid in most places, so that it is read far, and odd in some."""
    odd = rng.choice((0.0, 0.02, 0.2))

    def held(good: bytes) -> bytes:
        return value(rng) if rng.random() < odd else good

    features = [
        (quoted(name), held(rng.choice((number(rng) if odd else b"12.75", text(rng), b"null")))) for name in FEATURES
    ]
    features += [(key(rng), value(rng)) for _ in range(rng.randrange(3))]
    if rng.random() < odd:
        features = [(spelt_otherwise(rng, name), one) for name, one in features]
    if rng.random() < 0.7:
        features = [pair for pair in features if rng.random() < 0.8 and len(pair[0]) < 200 and b"\\" not in pair[0]]
    time_text = quoted(rng.choice(TIMES)) if rng.random() < 0.5 else quoted(TIMES[0])
    pairs = [
        (b'"prediction_id"', held(quoted(f"id-{rng.getrandbits(40)}"))),
        (b'"model"', held(rng.choice((b'"fraud"', b"7", quoted(MODELS[2]), b'"other"')))),
        (b'"version"', held(rng.choice((b'"v1"', b"1.10", b"null", b'"2026-11-20"')))),
        (b'"timestamp"', held(time_text if rng.random() < 0.6 else number(rng))),
        (b'"features"', held(members(rng, features))),
        (b'"prediction"', held(rng.choice((b"1", b'"yes"', b"true", b"null")))),
        (b'"score"', held(b"0.83")),
        (b'"segments"', held(members(rng, [(b'"country"', held(text(rng)))]))),
        (b'"latency_ms"', value(rng)),
        *((key(rng), value(rng)) for _ in range(rng.randrange(2))),
    ]
    if rng.random() < 0.3:
        rng.shuffle(pairs)
    if rng.random() < odd:
        pairs.append(rng.choice(pairs))
    if rng.random() < odd:
        at = rng.randrange(len(pairs))
        pairs[at] = (spelt_otherwise(rng, pairs[at][0]), pairs[at][1])
    if rng.random() < odd:
        pairs.pop(rng.randrange(len(pairs)))
    if rng.random() < 0.03:
        deep = rng.choice((30, 31, 32, 33, 100))
        pairs.append((b'"deep"', b"[" * deep + b"]" * deep))
    return space(rng) + members(rng, pairs) + space(rng)


def damage(rng: random.Random, data: bytes) -> bytes:
    """One to three bytes or pieces changed."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        if not changed:
            break
        at = rng.randrange(len(changed))
        choice = rng.randrange(6)
        if choice == 0:
            changed[at] = rng.randrange(256)
        elif choice == 1:
            changed[at] = rng.choice(b'{}[],:"\\0123456789.eE+- \n\tntfNI')
        elif choice == 2:
            del changed[at]
        elif choice == 3:
            changed.insert(at, rng.choice(b'{}[],:"\\0e.-\xff \x00'))
        elif choice == 4:
            del changed[at:]
        else:
            changed[at:at] = changed[at : at + rng.randrange(12)]
    return bytes(changed)


def record_value(rng: random.Random) -> bytes:
    made = event(rng) if rng.random() < 0.95 else value(rng)
    return damage(rng, made) if rng.random() < 0.35 else made


def batch(rng: random.Random, count: int) -> Records:
    """`count` values side by side in one buffer, the last one ending with it, some of them null or empty."""
    records = records_from_lines(
        [record_value(rng) for _ in range(count)], 1000, [rng.choice(RECORD_TIMES) for _ in range(count)]
    )
    changed = rng.randrange(count)
    rest = len(records.buffer) - int(records.value_start[changed])  # framing lets no value reach behind its buffer
    records.value_length[changed] = min(rng.choice((-1, 0, 1, int(records.value_length[0]))), rest)
    if rng.random() < 0.2:
        records = join_records([records_from_lines([b"{"], 0), records])
    return records


def differences(one: Columns, other: Columns) -> list[str]:
    names = [
        "next_offset",
        "offset",
        "row",
        "event_time_ms",
        "record_time_ms",
        "id_high",
        "id_low",
        "model",
        "version",
        "cell",
        "tag",
    ]
    names += ["version_names", "rejects", "tombstone_offset"]
    found = []
    for name in names:
        left, right = getattr(one, name), getattr(other, name)
        same = (
            np.array_equal(left, right) and left.dtype == right.dtype if isinstance(left, np.ndarray) else left == right
        )
        if not same:
            found.append(name)
    return found


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(LAYOUTS)))
def test_fast_equals_strict_on_events_that_hypothesis_finds(rng: random.Random, name: str) -> None:
    records = batch(rng, 3)
    assert differences(decode(records, LAYOUTS[name]), decode_strict(records, LAYOUTS[name])) == []


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_fast_equals_strict_on_a_seeded_run(name: str) -> None:
    run(2500, 20261122, [name])


def test_ordinary_events_never_reach_the_strict_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    layout = LAYOUTS["native"]
    lines = [ordinary(rng) for _ in range(2000)]
    expected = decode_strict(records_from_lines(lines), layout)
    assert len(expected) == 2000
    monkeypatch.setattr("stream.decode.decode_event", None)
    assert differences(decode(records_from_lines(lines), layout), expected) == []


def ordinary(rng: random.Random) -> bytes:
    """As producers write them: any float, NaN, null, text of any script, any white space that a library writes."""
    features = {
        "amount": rng.choice(
            (rng.uniform(-1e6, 1e6), rng.gauss(0, 1e-9), rng.getrandbits(50), math.nan, -math.inf, 1e300 * rng.random())
        ),
        "country": rng.choice(("DE", "naïve 😀 ١٢", "", "x" * 239, "é" * 100, 'a "quoted"\n\t\\ one')),
        "age_days": rng.choice((None, rng.randrange(100), True)),
        "other": [1, {"deep": ["\n", None]}],
    }
    held = {
        "prediction_id": rng.choice((f"{rng.getrandbits(128):032x}", rng.getrandbits(80))),
        "model": rng.choice(("fraud", "elsewhere")),
        "version": rng.choice(("v1", None, 3)),
        "timestamp": f"2026-11-{rng.randrange(1, 30):02}T10:15:{rng.random() * 59:09.6f}{rng.choice(('Z', '+01:00'))}",
        "features": features,
        "prediction": rng.choice((0, 1, "yes", rng.random())),
        "score": rng.random(),
        "segments": {"country": "DE"},
        "note": 'tab\t, quote ", é as an escape',
    }
    if rng.random() < 0.5:
        del held["segments"]
    separators = rng.choice(((", ", ": "), (",", ":")))
    indent = rng.choice((None, None, 2))
    return json.dumps(held, ensure_ascii=rng.random() < 0.5, separators=separators, indent=indent).encode()


HIDDEN = '{"a": %s, "a": 1}'


@pytest.mark.parametrize(
    "value", ["NaN", "[-Infinity]", "1e400", "1" + 400 * "0", '"\\ud83d"', '{"b": {"\\ude00": 1}}']
)
def test_what_a_later_key_hides_is_no_matter(value: str) -> None:
    data = (HIDDEN % value).encode()
    assert parse(data) == {"a": "1"}
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(data)
    assert unread_by_orjson(data)
    assert not unread_by_orjson((HIDDEN % '[1e308, "\\ud83d\\ude00", {"b": null}]').encode())


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_strict_parser_agrees_with_orjson(rng: random.Random) -> None:
    data = record_value(rng)
    theirs, ours, code = None, None, ""
    with contextlib.suppress(orjson.JSONDecodeError):
        theirs = orjson.loads(data)
    try:
        ours = parse(data)
    except RefusedError as error:
        code = error.code
    if ours is None:
        assert not isinstance(theirs, dict) or code == "too_deep"
        return
    if theirs is None:  # what orjson cannot read and the strict tier can: NaN, Infinity, numbers beyond float64
        assert unread_by_orjson(data)
    else:
        assert equal(ours, theirs)


def unread_by_orjson(data: bytes) -> bool:
    """Whether a value in it is one that orjson does not read; the last of equal keys counts, but those that it hides are read, too."""
    seen: list[object] = []

    def keep(pairs: list[tuple[str, object]]) -> dict[str, object]:
        seen.extend(held for pair in pairs for held in pair)
        return dict(pairs)

    json.loads(data.decode(), object_pairs_hook=keep, parse_int=float)
    return any(map(odd, seen))


def odd(held: object) -> bool:
    if isinstance(held, list):
        return any(map(odd, held))
    if isinstance(held, str):
        return any(0xD800 <= ord(sign) < 0xE000 for sign in held)
    return isinstance(held, float) and not math.isfinite(held)


def equal(ours: object, theirs: object) -> bool:
    if isinstance(theirs, dict):
        return (
            isinstance(ours, dict)
            and ours.keys() == theirs.keys()
            and all(equal(ours[k], v) for k, v in theirs.items())
        )
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(theirs, int | float) and not isinstance(theirs, bool):
        return type(ours).__name__ == "RawNumber" and float(ours) == float(theirs)
    return type(ours) is type(theirs) and ours == theirs


def test_a_cell_is_what_it_should_be() -> None:
    line = b'{"prediction_id":1,"model":"fraud","timestamp":"2026-11-22T10:15:03Z","features":{"amount":-0.0,"n":1e400,"a.b":2}}'
    columns = decode(records_from_lines([line]), LAYOUTS["native"])
    index = {path: place for place, path in enumerate(PATHS)}
    assert columns.cell[0, index["features.amount"]] == 0
    assert columns.tag[0, index["features.n"]] == Tag.INVALID
    assert columns.tag[0, index["features.a.b"]] == Tag.NUMBER


def run(events: int, seed: int, names: list[str]) -> None:
    """Compare both tiers on `events` seeded values per layout; the seed and the case are in the failure."""
    for name in names:
        rng = random.Random(f"{seed}/{name}")
        for done in range(0, events, 250):
            records = batch(rng, min(250, events - done))
            wrong = differences(decode(records, LAYOUTS[name]), decode_strict(records, LAYOUTS[name]))
            assert not wrong, (
                f"seed {seed}, layout {name}, events from {done}: {wrong} differ; {first_wrong(records, name)}"
            )


def first_wrong(records: Records, name: str) -> str:
    for at in range(len(records)):
        start, length = int(records.value_start[at]), int(records.value_length[at])
        line = bytes(records.buffer[start : start + max(length, 0)])
        one = records_from_lines([line], 0, int(records.timestamp_ms[at]))
        wrong = differences(decode(one, LAYOUTS[name]), decode_strict(one, LAYOUTS[name]))
        if wrong:
            return f"{wrong} of {line!r}"
    return "no single event: it is the batch"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare both decoding tiers on seeded random events.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    began = time.monotonic()
    run(-(-chosen.events // len(LAYOUTS)), chosen.seed, sorted(LAYOUTS))
    print(f"{chosen.events} events, seed {chosen.seed}, no difference, {time.monotonic() - began:.0f} s")
