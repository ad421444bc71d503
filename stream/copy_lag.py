"""How far the copies of a user's topic are behind it. Pure: the clock comes as an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Ends = Mapping[int, int]


@dataclass
class CopyLag:
    """`as_of_s`: all that was in the topic at this time of a monotonic clock is copied; None = that was never seen."""

    as_of_s: float | None = None
    events: int = 0
    _then: tuple[float, Ends] | None = None

    def see(self, ends: Ends, copied: Ends, now_s: float) -> None:
        """End of each partition as of `now_s`, and the offset before which, as was found after it, everything is copied."""
        self.events = sum(max(end - copied.get(partition, 0), 0) for partition, end in ends.items())
        for then in (self._then, (now_s, ends)):
            if then is not None and all(copied.get(partition, 0) >= end for partition, end in then[1].items()):
                self.as_of_s, self._then = then[0], None
        if self._then is None:
            self._then = (now_s, ends)

    def is_behind(self, now_s: float, most_s: float) -> bool:
        """Whether anything that came more than `most_s` ago may not be copied yet."""
        return self.as_of_s is None or now_s - self.as_of_s > most_s


class Copying(Protocol):
    """Who copies topics that are re-keyed: copier.Copier."""

    async def look(self, now_s: float) -> None: ...

    def is_behind(self, source: str, now_s: float, most_s: float) -> bool: ...

    async def drained(self) -> bool: ...
