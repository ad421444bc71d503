"""How much of a horizon's feedback has come at an age of it: counted on the windows of a model that are finished. Pure.

What a window's share is counted from is a function of the model's windows alone, not of what has come so far: the last
WINDOWS_COUNTED windows V with V.end + horizon < W.end + age, those that were finished when window W was as old as the age. So the
caller gives out windows of all points of a stream in the order of end + point; then all of those V are there.

Memory: 32 bytes of each window between its age and its horizon, at every point, and of WINDOWS_COUNTED before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stream.limits import limit
from stream.performance_merging import Horizon
from stream.performance_plan import ModelPerformance
from stream.performance_records import Provisional
from stream.window_log import Closed, WindowLog
from stream.windows import Window

WINDOWS_COUNTED = limit(
    "share_in_windows", 50, "finished windows that say how much of the feedback has come at an age: recent, and not few"
)
BLOCK = 128  # windows of one point to a blob


class Arrivals:
    """Of one model: what each of its points (horizons, and ages of them) has counted of each window."""

    def __init__(self, plan: ModelPerformance | None) -> None:
        streams = plan.streams if plan is not None else ()
        self._ages = {each.stream: each.ages for each in streams}
        points = sorted({Horizon(name, point) for name, ages in self._ages.items() for pair in ages for point in pair})
        self.logs = {point: WindowLog(BLOCK) for point in points}
        self._needed: dict[tuple[Horizon, int], int] = {}  # (age, its horizon) -> first window that it may ask for

    def revision(self, series: Horizon) -> int:
        """Of the final value: it comes after one of each age."""
        return 1 + sum(horizon == series.horizon_ms for horizon, _ in self._ages.get(series.stream, ()))

    def note(self, series: Horizon, number: int, window: Closed, observed: int, *, whole: bool) -> None:
        """What came of a window until it was as old as the series says. `whole`: nothing of it was lost."""
        log = self.logs.get(series)
        if log is None:
            return
        if log.count != number:
            log.restart(number)  # a new series, or windows that were dropped: what is before them is not joined to them
        log.append(Window(window.start_ms, window.end_ms, observed, sufficient=True), lost=not whole)

    def provisional(self, series: Horizon, window: Closed) -> Iterator[Provisional]:
        """What this series says of a window, said of every horizon that it is an age of; `note` has had the window."""
        for horizon_ms, age_ms in self._ages.get(series.stream, ()):
            if age_ms == series.horizon_ms:
                own = [age for horizon, age in self._ages[series.stream] if horizon == horizon_ms]
                yield Provisional(horizon_ms, age_ms, own.index(age_ms) + 1, self._share_in(series, horizon_ms, window))

    def _share_in(self, series: Horizon, horizon_ms: int, window: Closed) -> dict[str, Any]:
        ours, theirs = self.logs[series], self.logs[Horizon(series.stream, horizon_ms)]
        finished_ms = window.end_ms + series.horizon_ms - horizon_ms
        stop = bisect_left(range(theirs.count), finished_ms, lo=theirs.first, key=lambda number: theirs[number].end_ms)
        self._needed[series, horizon_ms] = max(stop - WINDOWS_COUNTED, 0)
        first = max(stop - WINDOWS_COUNTED, ours.first, theirs.first)
        stop = max(stop, first)
        (_, _, came, some), (_, _, of, others) = ours.between(first, stop).T, theirs.between(first, stop).T
        whole = (some == 0) & (others == 0)
        observed, finally_observed, windows = int(came[whole].sum()), int(of[whole].sum()), int(np.count_nonzero(whole))
        said: dict[str, Any] = {
            "value": observed / finally_observed if finally_observed else None,
            "observed": observed,
            "observed_finally": finally_observed,
            "windows": windows,
        }
        if not finally_observed:
            said["undefined"] = "no feedback in the finished windows" if windows else "no window is finished"
        return said

    def drop(self) -> None:
        """Forget windows that no share will be counted from."""
        for point, log in self.logs.items():
            asked = [
                self._needed.get((Horizon(point.stream, age_ms), horizon_ms), 0)
                for horizon_ms, age_ms in self._ages[point.stream]
                if point.horizon_ms in (horizon_ms, age_ms)
            ]
            log.drop(min(asked))

    # ---- snapshot ---------------------------------------------------------------------------------------------------

    def header(self) -> list[list[Any]]:
        return [[*point, log.first, log.count] for point, log in self.logs.items()]

    def blobs(self, prefix: str) -> dict[str, bytes | None]:
        """Blocks that changed since the last call."""
        return {
            name: blob for point, log in self.logs.items() for name, blob in log.blobs(_name(prefix, point)).items()
        }

    def names(self, prefix: str) -> set[str]:
        """Of all live blobs."""
        return {name for point, log in self.logs.items() for name in log.names(_name(prefix, point))}

    def load(self, prefix: str, header: Sequence[Sequence[Any]], blobs: Mapping[str, bytes]) -> None:
        """Become what they say, as far as there are such points still; new ones begin empty."""
        for stream, point_ms, first, count in header:
            point = Horizon(stream, point_ms)
            if point in self.logs:
                self.logs[point].load(_name(prefix, point), first, count, blobs)


def going_together(plans: Iterable[ModelPerformance | None]) -> dict[Horizon, tuple[Horizon, ...]]:
    """Series -> those whose windows are given out in one order with its own: ages and horizons of one stream, of any model."""
    streams = [stream for plan in plans if plan is not None for stream in plan.streams]
    found: dict[Horizon, tuple[Horizon, ...]] = {}
    for name in sorted({stream.stream for stream in streams}):
        own = [stream for stream in streams if stream.stream == name]
        linked = {point for stream in own for pair in stream.ages for point in pair}
        group = tuple(Horizon(name, point) for point in sorted(linked))
        found |= dict.fromkeys(group, group)
        alone = {point for stream in own for point in stream.points_ms} - linked
        found |= {Horizon(name, point): (Horizon(name, point),) for point in sorted(alone)}
    return found


def _name(prefix: str, point: Horizon) -> str:
    return f"{prefix}/{point.stream}/{point.horizon_ms}"
