"""Simulated rows whose metrics are known, for the coverage of intervals: a classifier, three classes, a regression, clicks, groups,
versions and pairs. Rows are independent; what is drawn of one window goes through the stream's own records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.performance import Layout, PerformanceSums
from detectors.performance.paired import PairedSums
from stream.performance_contrasts import contrast_outputs, paired_outputs
from stream.performance_plan import ModelPerformance
from stream.performance_records import Measured, performance_outputs
from stream.performance_told import Told, ToldKpi
from stream.plan import ALL
from stream.stage import Output
from stream.window_log import Closed

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Generator = np.random.Generator
Rows = tuple[int, ...]

TOLD = Told((0.1, 0.5, 0.9), ((0.0, -1.0), (-5.0, 3.0)), "EUR", ToldKpi("margin", 20.0, per_conversion=True))
OF_CLASSES = Told(worth=((3.0, -1.0, 0.0), (-5.0, 3.0, 0.0), (0.0, -2.0, 1.0)))
BINARY, CLASSES = Layout(classes=2, scores=True), Layout(classes=3, class_scores=True)
NUMBERS, CLICKS = Layout(errors=True), Layout(proxies=True)
REFERENCE, GROUP = "country=DE", "country=FR"
PLAN = ModelPerformance("m", (), 1, (), disparity=(("country", "DE"),), champion="1")
PARTS = ("difference", "ratio", "expected", "observed_over_expected")


@dataclass(frozen=True, slots=True)
class Said:
    """An interval that a record gives, None = it gives none; `used`: rows that the value is made of, of the smaller side."""

    value: float | None
    low: float | None
    high: float | None
    used: int


Named = Iterator[tuple[str, Said]]


@dataclass(frozen=True, slots=True)
class Law:
    """Of a binary classifier: mean of the logits, and from which score on it says yes."""

    shift: float = -0.5
    cut: float = 0.5


COMMON, RARE = Law(), Law(-3.2, 0.15)  # 38 and 7 % of the labels are positive


@dataclass(frozen=True)
class World:
    """What is drawn, and what the stream says of it. `rows`: of each part, in a window; `stated`: names of what is known not to hold
    here, and README says so.
    """

    name: str
    rows: Rows
    draw: Callable[[Generator, Rows], Named]
    stated: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.name} {'/'.join(map(str, self.rows))}"


# ---- rows -----------------------------------------------------------------------------------------------------------------


def sigmoid(x: F64) -> F64:
    found: F64 = 1.0 / (1.0 + np.exp(-x))
    return found


def binary_sums(g: Generator, n: int, law: Law = COMMON) -> PerformanceSums:
    """Scores of a model that is a little too sure of itself, and labels."""
    x = g.normal(law.shift, 1.2, n)
    score, label = sigmoid(1.3 * x + 0.2), (g.random(n) < sigmoid(x)).astype(np.int64)
    sums = PerformanceSums(BINARY)
    sums.add_scores(score, label)
    sums.add_classes((score >= law.cut).astype(np.int64), label)
    return sums


def class_sums(g: Generator, n: int) -> PerformanceSums:
    x = g.normal(0.0, 1.0, (n, 3)) + np.array([0.8, 0.3, -0.5])
    label = (x + g.gumbel(size=(n, 3))).argmax(axis=1)
    score = np.exp(1.2 * x)
    score /= score.sum(axis=1, keepdims=True)
    sums = PerformanceSums(CLASSES)
    sums.add_classes(score.argmax(axis=1), label)
    sums.add_class_scores(score, label)
    return sums


def error_sums(g: Generator, n: int, bias: float = 0.3) -> PerformanceSums:
    label = g.gamma(4.0, 5.0, n) + 20.0  # nearer to 0 the logarithm has a heavy tail: see rmsle
    sums = PerformanceSums(NUMBERS)
    sums.add_errors(np.maximum(label + g.normal(bias, 3.0, n), 0.0), label)
    return sums


def click_sums(g: Generator, n: int, factor: float = 1.1, shape: float = 4.0) -> PerformanceSums:
    """Of 100 predictions 10 are clicked and 5 convert; values by the gamma law, 1 = exponential."""
    score = g.beta(3.0, 30.0, n)
    clicked = g.random(n) < factor * score
    converted = clicked & (g.random(n) < 0.5)
    sums = PerformanceSums(CLICKS)
    sums.add_proxies(clicked, converted, np.where(converted, g.gamma(shape, 5.0, n), 0.0), score)
    return sums


def paired_sums(g: Generator, n: int, law: Law = COMMON, *, alike: bool = False) -> tuple[PairedSums, PairedSums]:
    """Two classifiers and two regressions that see the same thing, each with some noise of its own; `alike`: with a quarter of it."""
    x, own = g.normal(law.shift, 1.2, n), 0.25 if alike else 1.0
    label = (g.random(n) < sigmoid(x)).astype(np.int64)
    a, b = sigmoid(x + own * g.normal(0.0, 0.4, n)), sigmoid((1.0 - 0.1 * own) * x + own * g.normal(0.0, 0.7, n))
    both = PairedSums(BINARY, BINARY)
    both.add_scores(a, b, label)
    both.add_classes((a >= law.cut).astype(np.int64), (b >= law.cut).astype(np.int64), label)
    value, noise = g.gamma(4.0, 5.0, n), g.normal(0.0, 2.0, n)
    numbers = PairedSums(NUMBERS, NUMBERS)
    errors = noise + own * g.normal(0.1, 1.0, n), noise + own * g.normal(0.0, 1.5, n)
    numbers.add_errors(value + errors[0], value + errors[1], value)
    return both, numbers


# ---- what the stream says of them -----------------------------------------------------------------------------------------


def measured(sums: Any, kind: str, **more: Any) -> Measured:
    """One window's sums as the monitor has them when the window is final."""
    plain = Measured(
        "m", "1", ALL, "feedback", 60_000, "kept", Closed(0, 60_000, 1, lost=False), kind, 1, 1, True, (), sums, "1", told=TOLD
    )  # fmt: skip
    return replace(plain, **more)


def read(outputs: Iterator[Output]) -> Named:
    """Every interval of the records, by the name of the metric and of what is said of it."""
    for output in outputs:
        data = orjson.loads(output.value or b"")["data"]
        name = f"{data['metric']}@{data['quantile']:g}" if "quantile" in data else data["metric"]
        if "low" in data:
            yield name, _said(data, data["counts"]["used"])
        for part in PARTS:
            if part in data:
                yield f"{name}, {part}", _said(data[part], data[part]["used"])


def _said(data: dict[str, Any], used: int) -> Said:
    return Said(data["value"], data["low"], data["high"], used)


def plain(kind: str, sums: PerformanceSums, told: Told = TOLD) -> Named:
    yield from read(performance_outputs(measured(sums, kind, told=told), ()))


def label_worlds(law: Law, rows: int, name: str) -> World:
    def draw(g: Generator, n: Rows) -> Named:
        yield from plain("label", binary_sums(g, n[0], law))

    return World(name, (rows,), draw)


def number_world(rows: int) -> World:
    return World("numbers", (rows,), lambda g, n: plain("label", error_sums(g, n[0])))


def class_world(rows: int) -> World:
    return World("classes", (rows,), lambda g, n: plain("label", class_sums(g, n[0]), OF_CLASSES))


def click_world(rows: int, shape: float, name: str) -> World:
    def draw(g: Generator, n: Rows) -> Named:
        sums = click_sums(g, n[0], shape=shape)
        for kind in ("click", "conversion"):
            yield from plain(kind, sums)

    return World(name, (rows,), draw)


def group_world(law: Law, rows: Rows, name: str) -> World:
    """A group whose labels and scores are lower than those of its reference group."""

    def draw(g: Generator, n: Rows) -> Named:
        group, reference = binary_sums(g, n[0], replace(law, shift=law.shift - 0.4)), binary_sums(g, n[1], law)
        found = [measured(group, "label", segment=GROUP), measured(reference, "label", segment=REFERENCE)]
        yield from read(contrast_outputs(found, PLAN, ()))

    return World(name, rows, draw)


def version_world(law: Law, rows: Rows, name: str) -> World:
    """Two versions, each on predictions of its own: labels, numbers, clicks and conversions."""

    def draw(g: Generator, n: Rows) -> Named:
        other = replace(law, shift=law.shift - 0.2)
        clicks = [click_sums(g, n[0], 1.3), click_sums(g, n[1], 1.1)]
        for kind, (a, b) in (
            ("label", (binary_sums(g, n[0], other), binary_sums(g, n[1], law))),
            ("label", (error_sums(g, n[0], 0.1), error_sums(g, n[1], 0.3))),
            ("click", clicks),
            ("conversion", clicks),
        ):
            found = [measured(a, kind, version="2"), measured(b, kind)]
            yield from read(contrast_outputs(found, PLAN, ()))

    return World(name, rows, draw)


def pair_world(law: Law, rows: int, name: str, *, alike: bool = False, stated: tuple[str, ...] = ()) -> World:
    def draw(g: Generator, n: Rows) -> Named:
        for pair in paired_sums(g, n[0], law, alike=alike):
            found = measured(pair, "label", against=("other", "2"))
            yield from read(paired_outputs([found], [measured(pair.a, "label")], PLAN, ()))

    return World(name, (rows,), draw, frozenset(stated))


WORLDS = (
    *(label_worlds(COMMON, n, "labels") for n in (1000, 200, 60)),
    *(label_worlds(RARE, n, "rare labels") for n in (1000, 200)),
    *(number_world(n) for n in (1000, 200, 100)),
    *(class_world(n) for n in (1000, 200)),
    *(click_world(n, 4.0, "clicks") for n in (1000, 200)),
    *(click_world(n, 1.0, "clicks, values skewed") for n in (1000, 200)),
    *(group_world(COMMON, n, "groups") for n in ((250, 750), (100, 900), (1000, 1000))),
    *(group_world(RARE, n, "groups, rare labels") for n in ((500, 1500), (1000, 1000))),
    *(version_world(COMMON, n, "versions") for n in ((1000, 1000), (200, 800))),
    *(version_world(RARE, n, "versions, rare labels") for n in ((1000, 1000), (200, 800))),
    *(pair_world(COMMON, n, "pairs") for n in (1000, 200)),
    pair_world(RARE, 1000, "pairs, rare labels"),
    pair_world(COMMON, 1000, "pairs nearly alike", alike=True),
    # of the positive labels four tell the two apart: as any rate of so few rows
    pair_world(RARE, 1000, "pairs nearly alike, rare labels", alike=True, stated=("recall, difference",)),
)
