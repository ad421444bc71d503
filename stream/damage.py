"""Batches that cannot be opened: how often each was tried, until when its partition is left alone, when it is given up. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Place = tuple[str, int]  # topic, partition
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # the last one for ever
TRIES = 5  # a broken network card or page mends itself sooner, a broken disk never


@dataclass(slots=True)
class _Fault:
    offset: int
    tries: int = 0
    until_s: float = 0.0


class Damage:
    """`skip`: topics in which a batch is given up after `TRIES`.

    `on_fault(place, tries, error)` is told of each try, in the thread that fetches.
    """

    def __init__(self, skip: frozenset[str] = frozenset()) -> None:
        self.skip = skip
        self.on_fault: Callable[[Place, int, Exception], None] = lambda *_: None
        self._faults: dict[Place, _Fault] = {}

    def note(self, place: Place, offset: int, error: Exception, now_s: float) -> bool:
        """One more try has failed at this offset; True = it is to be passed over."""
        fault = self._faults.get(place)
        if fault is None or fault.offset != offset:
            fault = self._faults[place] = _Fault(offset)
        fault.tries += 1
        fault.until_s = now_s + PAUSES_S[min(fault.tries, len(PAUSES_S)) - 1]
        self.on_fault(place, fault.tries, error)
        if place[0] in self.skip and fault.tries >= TRIES:
            del self._faults[place]
            return True
        return False

    def waiting(self, now_s: float) -> set[Place]:
        """Partitions that are not to be fetched now."""
        return {place for place, fault in list(self._faults.items()) if now_s < fault.until_s}
