"""How often the intervals of performance metrics hold the truth: over simulated windows whose truth is known.

    python -m load_tests.interval_coverage --windows 1000 --seed 0

Every metric of a binary classifier, of three classes, of a regression, of clicks and of a series; disparities of two groups;
differences of two models on the same requests, and of two versions on requests of their own. The truth is the metric of a window
of two million rows. With 1,000 windows the coverage of a true 95 % interval has a standard error of .7 points; what is promised
is 93 to 97 %. Metrics whose entry says that their interval is too high or too wide are shown beside, in brackets. 1,000 windows
take a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from detectors.performance import METRICS, Estimate, Layout, MetricSettings, PerformanceSums, kept, measure
from detectors.performance.disparity import DISPARITIES, contrast, disparity
from detectors.performance.paired import COMPARED, PairedSums

F64 = NDArray[np.float64]
Generator = np.random.Generator
Named = Iterator[tuple[str, Estimate]]

ROWS, TRUTH_ROWS = 1000, 2_000_000
PROMISED = (0.93, 0.97)
WORTH = MetricSettings(target=1.0, value=np.array([[0.0, -1.0], [-5.0, 3.0]]))
BINARY, CLASSES = Layout(classes=2, scores=True), Layout(classes=3, class_scores=True)
NUMBERS, CLICKS = Layout(errors=True), Layout(proxies=True)
STATED = frozenset(name for name, m in METRICS.items() if "too high" in m.interval or "too wide" in m.interval)


def stated(name: str) -> bool:
    """Whether the entry of the metric that is measured, or compared, says so."""
    return name.partition(",")[0] in STATED


def sigmoid(x: F64) -> F64:
    found: F64 = 1.0 / (1.0 + np.exp(-x))
    return found


def every(sums: PerformanceSums) -> Named:
    for name in kept(sums.layout):
        if name != "business_value" or sums.layout.classes == 2:
            yield name, measure(name, sums, WORTH)


def binary_rows(g: Generator, n: int, shift: float = -0.5) -> tuple[F64, NDArray[np.int64]]:
    """Scores of a model that is a little too sure of itself, and labels."""
    x = g.normal(shift, 1.2, n)
    return sigmoid(1.3 * x + 0.2), (g.random(n) < sigmoid(x)).astype(np.int64)


def binary_sums(g: Generator, n: int, shift: float = -0.5) -> PerformanceSums:
    score, label = binary_rows(g, n, shift)
    sums = PerformanceSums(BINARY)
    sums.add_scores(score, label)
    sums.add_classes((score >= 0.5).astype(np.int64), label)
    return sums


def binary(g: Generator, n: int) -> Named:
    yield from every(binary_sums(g, n))


def classes(g: Generator, n: int) -> Named:
    x = g.normal(0.0, 1.0, (n, 3)) + np.array([0.8, 0.3, -0.5])
    label = (x + g.gumbel(size=(n, 3))).argmax(axis=1)
    score = np.exp(1.2 * x)
    score /= score.sum(axis=1, keepdims=True)
    sums = PerformanceSums(CLASSES)
    sums.add_classes(score.argmax(axis=1), label)
    sums.add_class_scores(score, label)
    yield from every(sums)


def regression(g: Generator, n: int) -> Named:
    yield from every(error_sums(g, n))


def error_sums(g: Generator, n: int, bias: float = 0.3) -> PerformanceSums:
    label = g.gamma(4.0, 5.0, n) + 5.0  # nearer to 0 the logarithm has a heavy tail: see rmsle
    sums = PerformanceSums(NUMBERS)
    sums.add_errors(np.maximum(label + g.normal(bias, 3.0, n), 0.0), label)
    return sums


def clicks(g: Generator, n: int) -> Named:
    yield from every(click_sums(g, n))


def click_sums(g: Generator, n: int, factor: float = 1.1) -> PerformanceSums:
    score = g.beta(1.5, 30.0, n)
    clicked = g.random(n) < factor * score
    converted = clicked & (g.random(n) < 0.5)
    sums = PerformanceSums(CLICKS)
    sums.add_proxies(clicked, converted, np.where(converted, g.gamma(4.0, 5.0, n), 0.0), score)
    return sums


def groups(g: Generator, n: int) -> Named:
    """A group of a quarter of the rows, whose labels and scores are lower."""
    group, reference = binary_sums(g, n // 4, -0.9), binary_sums(g, n - n // 4)
    for name in DISPARITIES:
        found = disparity(name, group, reference)
        yield f"{name}, difference", found.difference
        yield f"{name}, ratio", found.ratio


def versions(g: Generator, n: int) -> Named:
    """Two versions, each on as many predictions of its own."""
    for source, a, b in (
        (BINARY, binary_sums(g, n, -0.7), binary_sums(g, n)),
        (NUMBERS, error_sums(g, n, 0.1), error_sums(g, n, 0.3)),
        (CLICKS, click_sums(g, n, 1.3), click_sums(g, n, 1.1)),
    ):
        for name in kept(source):
            if name not in {"business_value", "quantile_loss"}:
                yield f"{name}, versions", contrast(measure(name, a, WORTH), measure(name, b, WORTH))


def pairs(g: Generator, n: int) -> Named:
    """Two models that see the same thing, each with some noise of its own."""
    x = g.normal(-0.5, 1.2, n)
    label = (g.random(n) < sigmoid(x)).astype(np.int64)
    a, b = sigmoid(x + g.normal(0.0, 0.4, n)), sigmoid(0.9 * x + g.normal(0.0, 0.7, n))
    both = PairedSums(BINARY, BINARY)
    both.add_scores(a, b, label)
    both.add_classes((a >= 0.5).astype(np.int64), (b >= 0.5).astype(np.int64), label)
    value = g.gamma(4.0, 5.0, n)
    noise = g.normal(0.0, 2.0, n)
    numbers = PairedSums(NUMBERS, NUMBERS)
    numbers.add_errors(value + noise + g.normal(0.1, 1.0, n), value + noise + g.normal(0.0, 1.5, n), value)
    for name in COMPARED:
        source = numbers if METRICS[name].task == "regression" else both
        yield f"{name}, paired", source.compare(name)


SCENARIOS: dict[str, Callable[[Generator, int], Named]] = {
    "binary": binary, "classes": classes, "regression": regression, "clicks": clicks, "groups": groups,
    "pairs": pairs, "versions": versions,
}  # fmt: skip


def coverage(scenario: str, seed: int, windows: int, rows: int = ROWS) -> dict[str, float]:
    """Name -> share of the windows whose interval holds the truth; a window without an interval does not hold it."""
    draw = SCENARIOS[scenario]
    number = list(SCENARIOS).index(scenario)
    truth = {name: x.value for name, x in draw(np.random.default_rng([seed, number, 0]), TRUTH_ROWS)}
    held = dict.fromkeys(truth, 0)
    for window in range(windows):
        for name, found in draw(np.random.default_rng([seed, number, 1 + window]), rows):
            value = truth[name]
            if value is not None and found.low is not None and found.high is not None:
                held[name] += found.low <= value <= found.high
    return {name: count / windows for name, count in held.items()}


def outside(found: dict[str, float], windows: int) -> dict[str, float]:
    """Those outside of what is promised, by more than two standard errors of fewer than 1,000 windows."""
    slack = 2.0 * (0.05 * 0.95 / windows) ** 0.5 if windows < 1000 else 0.0
    return {
        name: share
        for name, share in found.items()
        if not stated(name) and not PROMISED[0] - slack <= share <= PROMISED[1] + slack
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=ROWS, help="a window")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = {name: coverage(name, args.seed, args.windows, args.rows) for name in args.scenario or SCENARIOS}
    broken = {name: outside(each, args.windows) for name, each in found.items()}
    if args.json:
        print(
            json.dumps(
                {"windows": args.windows, "rows": args.rows, "seed": args.seed, "coverage": found, "outside": broken}
            )
        )
        return int(any(broken.values()))
    print(f"share of {args.windows} windows of {args.rows} rows whose 95 % interval holds the truth, seed {args.seed}")
    for scenario, each in found.items():
        for name, share in each.items():
            mark = "  outside" if name in broken[scenario] else ""
            figure = f"({share:.3f})" if stated(name) else f" {share:.3f} "
            print(f"{scenario:11} {name:34} {figure}{mark}")
    return int(any(broken.values()))


if __name__ == "__main__":
    sys.exit(main())
