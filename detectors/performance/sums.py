"""Sums and counts of one (model, version, segment, pane, horizon), from which every metric follows; they merge in any order.

Guarantee  counts are integers, float sums exact (detectors.performance.exact): equal sets of rows give equal bytes, however they
           were batched, ordered, split over partitions or merged
Input      codes of classes I64[n], -1 = none; scores, values and numeric labels F64[n], NaN = none
Refuses    arrays of other dtypes or lengths, and parts that are not kept (BadCounts); a value that cannot be used costs its row or
           its place in one sum, never the rest, and is counted in `left_out`
State      `layout.bytes` in memory: 8.7 kB for two classes with 256 bins of scores, 6 kB for a numeric target
Cost       .07 us a row and part for two classes with scores, .2 us a row of numeric errors; a merge 25 us, a serialisation .2 ms
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detectors.performance import exact, terms
from detectors.performance.layout import CALIBRATION_BINS, VERSION, Layout, Part, loss_names
from detectors.verdict import BadCounts, BadState

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

NO_CODE = -1
VALUE_MAX = 1e50  # in size; the fourth power of an error must still be summed. Larger labels are absurd
ZERO_MAX = float(
    np.finfo(np.float64).eps
)  # a label of this size has no percentage (scikit-learn divides by this instead)


def _zeros(layout: Layout) -> tuple[dict[str, I64], I64]:
    counts = {name: np.zeros(shape, np.int64) for name, shape in layout.shape.counts.items()}
    return counts, np.zeros((len(layout.shape.sums), exact.LIMBS), np.int64)


@dataclass(slots=True, eq=False)
class PerformanceSums:
    """`counts`: "part.name" -> I64 of `layout.shape`; `sums` I64[s, LIMBS]: exact sums in the order of `layout.shape.sums`."""

    layout: Layout
    counts: dict[str, I64] = field(init=False)
    sums: I64 = field(init=False)

    def __post_init__(self) -> None:
        self.counts, self.sums = _zeros(self.layout)

    def count(self, part: Part, name: str) -> I64:
        return self.counts[f"{part}.{name}"]

    def limbs(self, part: Part, name: str) -> I64:
        """A view of one sum."""
        found: I64 = self.sums[self.layout.shape.sums.index(f"{part}.{name}")]
        return found

    def total(self, part: Part, name: str) -> float:
        """One sum, correctly rounded."""
        return exact.number(self.limbs(part, name))

    def _add(self, part: Part, **values: F64) -> None:
        for name, each in values.items():
            exact.add(self.limbs(part, name), np.ascontiguousarray(each))

    def _needs(self, part: Part, size: int, /, **arrays: NDArray[np.generic]) -> None:
        if part not in self.layout.parts:
            raise BadCounts(f"{part} is not kept by this layout")
        for name, each in arrays.items():
            kind = np.float64 if name in ("score", "value", "prediction_value", "label_value") else np.int64
            if each.dtype != kind or each.shape[:1] != (size,):
                raise BadCounts(f"{name}: {each.dtype}{list(each.shape)}, expected {np.dtype(kind)}[{size}]")

    def add_classes(self, predicted: I64, label: I64) -> None:
        """Codes of the predicted class and of the label, both I64[n]."""
        self._needs(Part.CONFUSION, len(label), predicted=predicted, label=label)
        k = self.layout.classes
        known, said = (label >= 0) & (label < k), (predicted >= 0) & (predicted < k)
        both = known & said
        matrix = self.count(Part.CONFUSION, "matrix")
        matrix += np.bincount(label[both] * k + predicted[both], minlength=k * k).reshape(k, k)
        self.count(Part.CONFUSION, "predicted")[:] += np.bincount(predicted[said], minlength=k)
        unlabelled = int(np.count_nonzero(label == NO_CODE))
        left_out = self.count(Part.CONFUSION, "left_out")
        left_out += (unlabelled, len(label) - unlabelled - int(known.sum()), int((known & ~said).sum()))

    def add_scores(self, score: F64, label: I64) -> None:
        """Scores F64[n] of the positive class, of two, and labels I64[n]; rows without a label of a class do not count."""
        self._needs(Part.SCORES, len(label), score=score, label=label)
        labelled = (label == 0) | (label == 1)
        finite = np.isfinite(score)
        left_out = self.count(Part.SCORES, "left_out")
        left_out[0] += np.count_nonzero(labelled & ~finite)
        kept = labelled & finite
        s, y = score[kept], (label[kept] == self.layout.positive).astype(np.int64)
        b = self.layout.bins
        bins = self.count(Part.SCORES, "bins")
        bins += np.bincount(y * b + terms.places(self.layout.cuts, s), minlength=2 * b).reshape(2, b)
        inside = (s >= 0.0) & (s <= 1.0)
        left_out[1] += np.count_nonzero(~inside)
        self._add_probabilities(s[inside], y[inside])

    def _add_probabilities(self, p: F64, y: I64) -> None:
        square = (p - y) ** 2
        loss = terms.log_losses(p, y)
        self._add(Part.SCORES, score=p, score_2=p * p, score_positive=p[y == 1], squared_error=square)
        self._add(Part.SCORES, squared_error_2=square * square, log_loss=loss, log_loss_2=loss * loss)
        place = np.minimum((p * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        calibration = self.count(Part.SCORES, "calibration")
        calibration += np.bincount(place * 2 + y, minlength=2 * CALIBRATION_BINS).reshape(-1, 2)
        first = self.layout.shape.sums.index(f"{Part.SCORES}.calibration_0")
        exact.add_by_group(self.sums[first : first + CALIBRATION_BINS], place, p)

    def add_class_scores(self, score: F64, label: I64) -> None:
        """Scores F64[n, k] of every class, and labels I64[n]."""
        self._needs(Part.CLASS_SCORES, len(label), score=score, label=label)
        k, b = self.layout.classes, self.layout.bins
        if score.shape[1:] != (k,):
            raise BadCounts(f"score: {list(score.shape)}, expected [{len(label)}, {k}]")
        labelled = (label >= 0) & (label < k)
        finite = np.isfinite(score).all(axis=1)
        left_out = self.count(Part.CLASS_SCORES, "left_out")
        left_out[0] += np.count_nonzero(labelled & ~finite)
        s, y = score[labelled & finite], label[labelled & finite]
        bins = self.count(Part.CLASS_SCORES, "bins")
        for c in range(k):
            place = (y == c) * b + terms.places(self.layout.cuts, np.ascontiguousarray(s[:, c]))
            bins[c] += np.bincount(place, minlength=2 * b).reshape(2, b)
        proper = (s >= 0.0).all(axis=1) & (np.abs(s.sum(axis=1) - 1.0) <= terms.SHARES_TOLERANCE)
        left_out[1] += np.count_nonzero(~proper)
        s, y = s[proper], y[proper]
        self.count(Part.CLASS_SCORES, "rows")[0] += len(y)
        loss, square = terms.class_losses(np.ascontiguousarray(s), y)
        self._add(Part.CLASS_SCORES, log_loss=loss, log_loss_2=loss * loss)
        self._add(Part.CLASS_SCORES, squared_error=square, squared_error_2=square * square)

    def add_errors(self, prediction_value: F64, label_value: F64) -> None:
        """Numeric predictions and labels, F64[n], NaN = no label yet."""
        self._needs(Part.ERRORS, len(label_value), prediction_value=prediction_value, label_value=label_value)
        some = ~np.isnan(label_value)
        with np.errstate(invalid="ignore"):
            usable = some & (np.abs(label_value) <= VALUE_MAX) & (np.abs(prediction_value) <= VALUE_MAX)
        left_out = self.count(Part.ERRORS, "left_out")
        left_out += (np.count_nonzero(~some), np.count_nonzero(some & ~usable))
        p, y = prediction_value[usable], label_value[usable]
        e, centred = p - y, y - self.layout.centre
        self.count(Part.ERRORS, "rows")[0] += len(y)
        over = self.count(Part.ERRORS, "over")
        over += (np.count_nonzero(e > 0), np.count_nonzero(e < 0))
        size, square, square_y = np.abs(e), e * e, centred * centred
        self._add(
            Part.ERRORS, label=y, label_3=square_y * centred, label_4=square_y * square_y, error=e, error_2=square
        )
        exact.add_squares(self.limbs(Part.ERRORS, "label_2"), np.ascontiguousarray(y))
        self._add(
            Part.ERRORS, error_4=square * square, error_2_label=square * centred, error_2_label_2=square * square_y
        )
        self._add(Part.ERRORS, absolute_error=size, absolute_label=np.abs(y), absolute_error_label=size * np.abs(y))
        for q, name in zip(self.layout.quantiles, loss_names(self.layout.quantiles), strict=True):
            loss = np.where(e < 0, -q * e, (1.0 - q) * e)
            self._add(Part.ERRORS, **{name: loss, f"{name}_2": loss * loss})
        self._add_relative(p, y)

    def _add_relative(self, p: F64, y: F64) -> None:
        zero = np.abs(y) < ZERO_MAX
        self.count(Part.ERRORS, "zero")[0] += np.count_nonzero(zero)
        relative = (p - y)[~zero] / y[~zero]
        self._add(Part.ERRORS, relative=relative, relative_2=relative * relative, absolute_relative=np.abs(relative))
        negative = (y < 0) | (p < 0)
        self.count(Part.ERRORS, "negative")[0] += np.count_nonzero(negative)
        square = terms.log_errors(p[~negative], y[~negative]) ** 2
        self._add(Part.ERRORS, log_2=square, log_4=square * square)

    def add_proxies(self, clicked: Bool, converted: Bool, value: F64, score: F64) -> None:
        """All predictions of the pane: clicked, converted Bool[n] within the horizon; value F64[n] of the conversions, 0 = none;
        score F64[n] of the positive class, NaN = none.
        """
        self._needs(Part.PROXIES, len(clicked), value=value, score=score)
        if clicked.dtype != np.bool_ or converted.dtype != np.bool_ or converted.shape != clicked.shape:
            raise BadCounts("clicked, converted: two bool arrays of one length")
        usable = np.abs(value) <= VALUE_MAX  # also false for NaN
        scored = (score >= 0.0) & (score <= 1.0)
        p, hit = score[scored], clicked[scored]
        counts = (len(clicked), clicked.sum(), converted.sum(), len(p), hit.sum(), np.count_nonzero(~usable))
        rows = self.count(Part.PROXIES, "rows")
        rows += np.array(counts, np.int64)
        v = value[usable]
        self._add(Part.PROXIES, value=v, value_2=v * v, score=p, score_2=p * p, score_clicked=p[hit])

    def copy(self) -> PerformanceSums:
        found = PerformanceSums(self.layout)
        found.counts, found.sums = {name: each.copy() for name, each in self.counts.items()}, self.sums.copy()
        return found

    def merge(self, other: PerformanceSums) -> None:
        """Self += other. Raises BadState for another layout."""
        if other.layout.identity != self.layout.identity:
            raise BadState(f"sums of layouts {self.layout.identity} and {other.layout.identity} cannot be merged")
        for name, each in other.counts.items():
            self.counts[name] += each
        exact.merge(self.sums, other.sums)

    def to_sections(self) -> dict[str, I64]:
        """Named arrays of little-endian int64: "head" (version, then the layout's identity), "sums" (exact.pack), and the counts."""
        head = np.array([VERSION], "<i8").tobytes() + bytes.fromhex(self.layout.identity)
        sections = {name: each.ravel().astype("<i8") for name, each in self.counts.items()}
        return {"head": np.frombuffer(head, "<i8"), "sums": exact.pack(self.sums), **sections}


def from_sections(layout: Layout, sections: Mapping[str, NDArray[np.generic]]) -> PerformanceSums:
    """What `to_sections` had. Raises BadState for another version or layout, and for sections that are missing, unknown or damaged."""
    found = PerformanceSums(layout)
    names = {"head", "sums", *layout.shape.counts}
    if set(sections) != names:
        raise BadState(f"sections of sums: {', '.join(sorted(set(sections) ^ names))} missing or unknown")
    if any(each.dtype != np.dtype("<i8") or each.ndim != 1 for each in sections.values()):
        raise BadState("sections of sums are flat arrays of int64")
    arrays: dict[str, I64] = {name: each.astype(np.int64) for name, each in sections.items()}
    head = arrays.pop("head")
    if len(head) != 3 or head[0] != VERSION:
        raise BadState(f"sums of version {head[0] if len(head) else 'none'}; this is version {VERSION}")
    identity = head[1:].astype("<i8").tobytes().hex()
    if identity != layout.identity:
        raise BadState(f"sums of layout {identity}, not of {layout.identity}")
    found.sums = exact.unpack(arrays.pop("sums"), len(layout.shape.sums))
    for name, each in arrays.items():
        if each.size != found.counts[name].size or (each < 0).any():
            raise BadState(f"section {name}: {each.size} counts, {found.counts[name].size} expected, none negative")
        found.counts[name][...] = each.reshape(found.counts[name].shape)
    return found


def merged(layout: Layout, parts: list[PerformanceSums]) -> PerformanceSums:
    """The sum of any number, in any order; none give the empty one."""
    found = PerformanceSums(layout)
    for part in parts:
        found.merge(part)
    return found
