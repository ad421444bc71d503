"""Whatever stands in the file: it is read, or refused by a ConfigError with a place; quantities survive their own text."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.config import Config
from stream.config_errors import ConfigError
from stream.config_loader import load_config
from stream.quantities import DURATION_MS_MAX, Duration, Rate, Size

GOOD = b"""\
kafka: {bootstrap_servers: [a:1, b:2], security: {protocol: SSL, ca_file: ca.pem}}
topics: {predictions: {name: p, mapping: {scores: {score: s}}, lateness: 5s}}
models:
  fraud: &f
    reference: {first: 5000}
    window: {every: 5m, min_events: 100}
    segments: {country: [DE, 1, true]}
    targets: {amount: {range: [0, 5e3], kind: numeric}}
  churn: *f
"""
PIECES = [
    b"!!python/object:os.system",
    b"*f",
    b"&f",
    b"<<:",
    b"\t",
    b"\x00",
    b"\xff",
    b"- ",
    b"? ",
    b"[",
    b"}",
    b"'",
    b"|\n",
    b"no",
    b"1e-3",
    b".nan",
    b"${X}",
]
PIECES += [
    b"---\n",
    b"%YAML 1.1\n",
    b"0x1F",
    b"1_0",
    b"\xe2\x80\xa8",
    b"null",
    b"2026-11-22",
    b'"\\ud800"',
    b"#",
    b": ",
    b"~",
    b"{}",
    b"9" * 50,
]


def read(raw: bytes) -> Config | ConfigError:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "monitor.yaml"
        path.write_bytes(raw)
        try:
            return load_config(path)
        except ConfigError as error:
            return error


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    raw = GOOD
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
        raw = raw[:at] + piece + raw[at + draw(st.integers(0, 6)) :]
    return raw


def test_the_base_of_the_mutations_is_good() -> None:
    assert isinstance(read(GOOD), Config)


@settings(max_examples=200, deadline=None)
@given(mutated())
def test_a_damaged_file_is_read_or_refused_with_a_place(raw: bytes) -> None:
    found = read(raw)
    if isinstance(found, ConfigError):
        assert found.problems
        for problem in found.problems:
            assert problem.file.endswith("monitor.yaml")
            assert (problem.line > 0) == (problem.column > 0)
            assert (
                problem.line
                <= raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\xe2\x80\xa8") + raw.count(b"\xc2\x85") + 2
            )
            assert problem.read


@settings(max_examples=100)
@given(st.integers(1, DURATION_MS_MAX), st.integers(1, 10**6), st.integers(1, 10**12 - 1))
def test_quantities_survive_their_own_text(length_ms: int, count: int, size: int) -> None:
    duration = Duration(length_ms)
    assert Duration.parse(str(duration)) == duration
    assert Size.parse(str(Size(size))) == Size(size)
    rate = Rate.parse(f"{count} per {duration}")
    assert rate.budget_ms == length_ms / count
