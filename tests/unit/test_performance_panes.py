"""Panes of performance: what is written is read again, in one form, within a record, and damage is named."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.performance import Layout, PerformanceSums, score_cuts
from detectors.performance.paired import PairedSums
from stream import container
from stream.config_kafka import NAME_MAX
from stream.limits import RECORD_BYTES_MAX
from stream.panes import decode_record
from stream.performance_panes import (
    PerformancePane,
    PerformancePaneTooLargeError,
    bytes_max,
    check_layout,
    encode_performance_pane,
    series_name,
    series_of,
)

LAYOUTS = {
    "binary": Layout(classes=2, scores=True),
    "own cuts": Layout(classes=2, positive=0, scores=True, cuts=score_cuts(np.linspace(0.1, 0.3, 999), 40)),
    "classes": Layout(classes=5, class_scores=True),
    "numbers": Layout(errors=True, quantiles=(0.05, 0.5), centre=3.25),
    "proxies": Layout(proxies=True),
}


def filled(layout: Layout, rows: int, seed: int = 0) -> PerformanceSums:
    g, sums = np.random.default_rng(seed), PerformanceSums(layout)
    label = g.integers(-1, max(layout.classes, 1), rows)
    if layout.classes:
        sums.add_classes(g.integers(-1, layout.classes + 1, rows), label)
    if layout.scores:
        sums.add_scores(g.random(rows), label)
    if layout.class_scores:
        sums.add_class_scores(g.dirichlet(np.ones(layout.classes), rows), label)
    if layout.errors:
        sums.add_errors(g.normal(size=rows), g.normal(size=rows) * 1e6)
    if layout.proxies:
        hit = g.random(rows) < 0.1
        sums.add_proxies(hit, ~hit, g.normal(size=rows), g.random(rows))
    return sums


def pane(layout: Layout, rows: int, seed: int = 0, **said: object) -> PerformancePane:
    names = tuple(f"class {i}" for i in range(layout.classes))
    usual = PerformancePane(
        3, "fraud", "7", "country=DE", "clicks", "click", 60_000, 120_000, rows, rows // 2, complete=True, classes=names,
        sums=filled(layout, rows, seed),
    )  # fmt: skip
    return replace(usual, **said)


def same(a: PerformancePane, b: PerformancePane) -> None:
    for field in fields(a):
        if field.name != "sums":
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    assert a.kept == b.kept
    one, other = a.sums.to_sections(), b.sums.to_sections()
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 300), st.integers(0, 1 << 30))
def test_what_is_written_is_read_again(name: str, rows: int, seed: int) -> None:
    sent = pane(LAYOUTS[name], rows, seed, complete=bool(seed % 2))
    record = encode_performance_pane(sent)
    back = decode_record(record)
    assert isinstance(back, PerformancePane)
    same(sent, back)
    assert encode_performance_pane(back) == record
    assert len(record) <= bytes_max(LAYOUTS[name])


def test_what_is_of_another_kind_has_another_name() -> None:
    names = {pane(layout, 0).kept for layout in LAYOUTS.values()}
    assert len(names) == len(LAYOUTS)
    assert pane(LAYOUTS["binary"], 0, classes=("no", "yes")).kept not in names


def test_usual_sizes() -> None:
    assert len(encode_performance_pane(pane(LAYOUTS["binary"], 60))) < 1900
    assert len(encode_performance_pane(pane(LAYOUTS["proxies"], 60))) < 800
    assert len(encode_performance_pane(pane(LAYOUTS["numbers"], 60))) < 2000


def test_a_layout_that_may_not_fit_a_record_is_refused_before_it_has_rows() -> None:
    for layout in (*LAYOUTS.values(), Layout(classes=32, class_scores=True), Layout(classes=128)):
        check_layout(layout)
    wide = Layout(classes=32, class_scores=True, cuts=np.linspace(0, 1, 4000))
    with pytest.raises(PerformancePaneTooLargeError, match="32 classes with 4001 bins"):
        check_layout(wide)
    sums = PerformanceSums(wide)
    for name in sums.counts:
        sums.counts[name] += 1 << 40
    with pytest.raises(PerformancePaneTooLargeError, match="'fraud', labels: a pane of"):
        encode_performance_pane(replace(pane(wide, 0), stream="labels", sums=sums))


def fill(sums: PerformanceSums | PairedSums) -> None:
    """Counts and sums as large as they get."""
    for name in sums.counts:
        sums.counts[name] += np.random.default_rng(0).integers(1 << 60, 1 << 61, sums.counts[name].shape)
    sums.sums[:, :-1] = 0xDEADBEEF


def test_the_bound_on_bytes_holds_for_counts_sums_and_names_as_large_as_they_get() -> None:
    for layout in (*LAYOUTS.values(), Layout(classes=128), Layout(classes=32, class_scores=True)):
        sums = PerformanceSums(layout)
        fill(sums)
        classes = ("\U0001f431" * NAME_MAX,) * layout.classes
        long = pane(layout, 0, model="m" * 256, version="v" * 256, segment="s" * 513, classes=classes)
        record = encode_performance_pane(replace(long, sums=sums))
        assert len(record) <= bytes_max(layout) <= RECORD_BYTES_MAX


def test_a_pane_of_pairs_has_its_own_bound() -> None:
    for layout, most in ((LAYOUTS["binary"], 36_000), (LAYOUTS["numbers"], 29_000)):
        sums = PairedSums(layout, layout)
        for part in (sums.a, sums.b, sums):
            fill(part)
        record = encode_performance_pane(replace(pane(layout, 0), sums=sums, against=("other", "1")))
        assert bytes_max(layout) < len(record) <= most


def test_damage_is_named() -> None:
    good = container.decode(encode_performance_pane(pane(LAYOUTS["own cuts"], 50)))

    def read(header: dict[str, object] | None = None, **sections: np.ndarray) -> None:
        decode_record(container.encode("performance", 1, good.header | (header or {}), {**good.sections, **sections}))

    with pytest.raises(container.UnknownSection, match="extra"):
        read(extra=np.zeros(1))
    with pytest.raises(container.Malformed, match="unknown parts clicks"):
        read({"layout": good.header["layout"] | {"parts": ["clicks"]}})
    with pytest.raises(container.Malformed, match="not of"):
        read(cuts=good.sections["cuts"] + 1e-9)
    with pytest.raises(container.Malformed, match="expected 4"):
        read(**{"confusion.matrix": np.zeros(3, np.uint8)})
    with pytest.raises(container.Malformed, match="horizon"):
        read({"horizon": 5})
    with pytest.raises(container.Malformed, match="packed sums"):
        read(sums=np.zeros(1, "<i8"))
    with pytest.raises(container.UnknownVersion):
        decode_record(container.encode("performance", 2, good.header, good.sections))
    less = {name: each for name, each in good.sections.items() if name != "sums"}
    with pytest.raises(container.UnknownSection, match="missing section 'sums'"):
        decode_record(container.encode("performance", 1, good.header, less))


def test_names_of_series() -> None:
    assert series_of(series_name("clicks", 60_000)) == ("clicks", 60_000)
    assert series_of(series_name("labels", 0)) == ("labels", 0)
    assert series_of("inputs") is series_of("@5") is series_of("clicks@") is series_of("clicks@-5") is None
    for name in ("", "a@b"):
        with pytest.raises(ValueError, match="cannot name a stream"):
            series_name(name, 1)
