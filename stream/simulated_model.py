"""A simulated model that scores card payments: what the demo publishes, and what detection is measured on.

Twenty features (sixteen numbers, four categories, some missing), a score, a decision at a threshold. Everything follows
from a seed: block k of a simulation is the same whoever asks for it, in whatever order. A scripted drift either moves one
number by so many standard deviations of its own latent normal, or moves the decision threshold and nothing else.

`amount` carries no weight in the score, so that its shift can be told from its consequences: on seeing one feature move,
a detector that names two is wrong. Cost: about 3 µs an event as JSON, 1 µs as columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MODEL = "fraud"
VERSION = "2026-11-20"
BLOCK = 4096  # events drawn from one generator
JITTER_MS = 200  # events of a real topic are not quite in order
THRESHOLD = 0.5
SCORE_CENTRE, SCORE_SPREAD = -0.8, 1.5  # logit: 30 % of decisions are positive


@dataclass(frozen=True, slots=True)
class Number:
    """One numeric feature: `shape` of a standard normal latent; `weight` in the score; `missing` share of nulls."""

    name: str
    shape: Callable[[F64], F64]
    weight: float = 0.0
    missing: float = 0.0
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Category:
    name: str
    shares: tuple[tuple[str, float], ...]
    missing: float = 0.0


def _lognormal(median: float, spread: float) -> Callable[[F64], F64]:
    return lambda z: median * np.exp(spread * z)


def _normal(mean: float, spread: float) -> Callable[[F64], F64]:
    return lambda z: mean + spread * z


def _share(centre: float, spread: float) -> Callable[[F64], F64]:
    return lambda z: 1.0 / (1.0 + np.exp(-(centre + spread * z)))


def _count(median: float, spread: float) -> Callable[[F64], F64]:
    return lambda z: np.floor(median * np.exp(spread * z))


def _step(size: float, median: float, spread: float) -> Callable[[F64], F64]:
    return lambda z: size * np.ceil(median * np.exp(spread * z) / size)


def _mostly_zero(level: float, scale: float) -> Callable[[F64], F64]:
    return lambda z: scale * np.maximum(0.0, z - level)


NUMBERS: tuple[Number, ...] = (
    Number("amount", _lognormal(41.0, 1.24)),
    Number("amount_24h", _lognormal(95.0, 1.1), weight=0.30),
    Number("payments_24h", _count(3.2, 0.8), weight=0.35, digits=0),
    Number("minutes_since_last", _lognormal(180.0, 1.5), weight=-0.25, missing=0.01),
    Number("age_days", _lognormal(700.0, 0.9), weight=-0.20, missing=0.02, digits=0),
    Number("merchant_risk", _share(-1.6, 0.9), weight=0.40, digits=4),
    Number("distance_km", _lognormal(6.0, 1.3), weight=0.25),
    Number("device_age_days", _lognormal(400.0, 0.7), weight=-0.10, missing=0.05, digits=0),
    Number("ip_reputation", _share(1.4, 1.0), weight=-0.35, missing=0.01, digits=4),
    Number("items", _count(2.4, 0.6), digits=0),
    Number("discount", _mostly_zero(0.4, 12.0)),
    Number("session_s", _lognormal(210.0, 0.8), weight=-0.10),
    Number("typing_ms", _normal(180.0, 35.0), weight=0.15),
    Number("credit_limit", _step(500.0, 3000.0, 0.6), digits=0),
    Number("balance", _normal(850.0, 620.0), weight=-0.15),
    Number("velocity", _normal(0.0, 1.0), weight=0.30, digits=4),
)
CATEGORIES: tuple[Category, ...] = (
    Category(
        "country", (("DE", 0.34), ("FR", 0.22), ("US", 0.18), ("NL", 0.1), ("ES", 0.08), ("PL", 0.05), ("SE", 0.03))
    ),
    Category("channel", (("app", 0.55), ("web", 0.38), ("phone", 0.07))),
    Category("card_type", (("debit", 0.5), ("credit", 0.38), ("prepaid", 0.09), ("virtual", 0.03))),
    Category("device_os", (("android", 0.44), ("ios", 0.37), ("windows", 0.13), ("other", 0.06)), missing=0.03),
)
FEATURES: tuple[str, ...] = (*(number.name for number in NUMBERS), *(category.name for category in CATEGORIES))
SEGMENT = "country"


@dataclass(frozen=True, slots=True)
class Drift:
    """What changes for events from `at_ms` on (event time); None = never.

    feature, shift   a numeric feature and how far its latent normal moves, in its standard deviations
    threshold        the decision threshold from then on
    """

    at_ms: int | None = None
    feature: str = "amount"
    shift: float = 0.0
    threshold: float = THRESHOLD

    def __post_init__(self) -> None:
        if self.feature not in {number.name for number in NUMBERS}:
            raise ValueError(f"{self.feature} is no numeric feature of the simulated model")


@dataclass(frozen=True, slots=True)
class Block:
    """n events in log order. numbers: F64[n], NaN = missing; categories: codes I64[n] into Category.shares, -1 = missing."""

    first: int
    time_ms: I64
    numbers: dict[str, F64]
    categories: dict[str, I64]
    score: F64
    prediction: I64
    ids: pa.StringArray = field(repr=False)

    def __len__(self) -> int:
        return len(self.time_ms)


@dataclass(frozen=True, slots=True)
class Simulation:
    """Events `rate_per_s` apart from `start_ms` on (event time, give or take JITTER_MS)."""

    seed: int
    rate_per_s: float
    start_ms: int
    drift: Drift = Drift()
    threshold: float = THRESHOLD

    def blocks(self, events: int | None = None) -> Iterator[Block]:
        """All events in order, BLOCK at a time; without `events` it never ends."""
        index = 0
        while events is None or index * BLOCK < events:
            size = BLOCK if events is None else min(BLOCK, events - index * BLOCK)
            yield self.block(index, size)
            index += 1

    def block(self, index: int, size: int = BLOCK) -> Block:
        """The first `size` events of block `index`."""
        generator = np.random.default_rng([self.seed, index])
        first = index * BLOCK
        place = first + np.arange(BLOCK)
        time_ms = self.start_ms + (place * (1000.0 / self.rate_per_s)).astype(np.int64)
        time_ms += generator.integers(0, JITTER_MS, BLOCK)
        drifted = time_ms >= self.drift.at_ms if self.drift.at_ms is not None else np.zeros(BLOCK, bool)
        logit = np.zeros(BLOCK)
        numbers: dict[str, F64] = {}
        for number in NUMBERS:
            latent = generator.standard_normal(BLOCK)
            absent = generator.random(BLOCK) < number.missing
            if number.name == self.drift.feature:
                latent = latent + self.drift.shift * drifted
            logit += number.weight * latent
            values = np.round(number.shape(latent), number.digits) + 0.0  # + 0.0: no minus zero
            values[absent] = np.nan
            numbers[number.name] = values[:size]
        categories = {}
        for category in CATEGORIES:
            codes = np.searchsorted(
                np.cumsum([share for _, share in category.shares])[:-1], generator.random(BLOCK), "right"
            )
            categories[category.name] = np.where(generator.random(BLOCK) < category.missing, -1, codes)[:size]
        spread = np.sqrt(sum(number.weight**2 for number in NUMBERS) + 0.25)
        logit = SCORE_CENTRE + SCORE_SPREAD / spread * (logit + 0.5 * generator.standard_normal(BLOCK))
        score = np.round(1.0 / (1.0 + np.exp(-logit)), 6)
        threshold = np.where(drifted, self.drift.threshold, self.threshold)
        digits = pc.utf8_lpad(pa.array(place[:size]).cast(pa.string()), 12, "0")
        ids = pc.binary_join_element_wise(f"{self.seed & 0xFFFFFFFFFFFFFFFF:016x}", digits, "-")
        prediction = (score >= threshold).astype(np.int64)
        return Block(first, time_ms[:size], numbers, categories, score[:size], prediction[:size], ids)


def json_lines(block: Block) -> list[bytes]:
    """One native prediction event per row, without line ends. A missing value is written as null."""
    texts = {number.name: _number_text(block.numbers[number.name]) for number in NUMBERS}
    texts |= {category.name: _category_text(category, block.categories[category.name]) for category in CATEGORIES}
    times = pa.array(np.datetime_as_string(block.time_ms.astype("M8[ms]"), timezone="UTC"))
    parts: list[pa.Array | str] = ['{"prediction_id":"', block.ids]
    parts += [f'","model":"{MODEL}","version":"{VERSION}","timestamp":"', times, '","features":{']
    for index, name in enumerate(FEATURES):
        parts += [f'{"," if index else ""}"{name}":', texts[name]]
    parts += ['},"prediction":', pa.array(block.prediction).cast(pa.string()), ',"score":', _number_text(block.score)]
    parts += [f',"segments":{{"{SEGMENT}":', texts[SEGMENT], "}}"]
    joined = pc.binary_join_element_wise(*parts, "")
    lines: list[bytes] = joined.cast(pa.binary()).to_pylist()
    return lines


def table(block: Block) -> pa.Table:
    """One row per event: `timestamp` (UTC, ms), the features, `prediction`, `score`, `prediction_id`."""
    columns: dict[str, pa.Array] = {"timestamp": pa.array(block.time_ms.astype("M8[ms]"), pa.timestamp("ms", "UTC"))}
    for number in NUMBERS:
        values = block.numbers[number.name]
        columns[number.name] = pa.array(values, mask=np.isnan(values))
    for category in CATEGORIES:
        codes = block.categories[category.name]
        columns[category.name] = _names(category).take(pa.array(codes, mask=codes < 0))
    columns["prediction"] = pa.array(block.prediction)
    columns["score"] = pa.array(block.score)
    columns["prediction_id"] = block.ids
    return pa.table(columns)


def write_training_file(path: Path, simulation: Simulation, events: int) -> None:
    """Parquet as a team would keep its training or validation rows. About 1 µs and 60 bytes an event."""
    blocks = simulation.blocks(events)
    first = table(next(blocks))
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for block in blocks:
            writer.write_table(table(block))


def write_json_lines(path: Path, simulation: Simulation, events: int) -> None:
    """What `driftline replay` reads. About 3 µs and 650 bytes an event."""
    with path.open("wb") as file:
        for block in simulation.blocks(events):
            file.write(b"\n".join(json_lines(block)) + b"\n")


def _names(category: Category) -> pa.Array:
    return pa.array([name for name, _ in category.shares])


def _number_text(values: F64) -> pa.Array:
    """JSON numbers, the shortest that read back as the same float64."""
    return pc.fill_null(pa.array(values, mask=np.isnan(values)).cast(pa.string()), "null")


def _category_text(category: Category, codes: I64) -> pa.Array:
    quoted = pa.array([f'"{name}"' for name, _ in category.shares])
    return pc.fill_null(quoted.take(pa.array(codes, mask=codes < 0)), "null")
