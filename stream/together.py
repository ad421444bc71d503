"""Partition numbers that came to a worker without all the topics that their state reads together.

Whoever leads the group assigns the topics that it knows of just now: one that is gone for a moment, or was made while nobody looked,
is missing until the leader looks again and everybody joins anew. Members that read other topics leave it out for good.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

log = logging.getLogger(__name__)

STAYS_S = 30.0  # a leader looks every ten
POLL_S = 2.0
SAY_S = 10.0  # worker_main.Seldom lets a text through that was not told for so long


def apart(assigned: Iterable[tuple[str, int]], needed: Collection[str]) -> dict[int, list[str]]:
    """Number -> what it lacks of `needed`, in order; those that have all are left out. assigned: (source, number)."""
    found: dict[int, set[str]] = {}
    for source, number in assigned:
        found.setdefault(number, set()).add(source)
    return {number: sorted(set(needed) - own) for number, own in sorted(found.items()) if set(needed) - own}


async def stays(
    names: Collection[str],
    topics: Callable[[Collection[str]], Awaitable[Mapping[str, object]]],
    still: Callable[[], bool],
    say: Callable[[], None],
    *,
    stays_s: float = STAYS_S,
    poll_s: float = POLL_S,
    say_s: float = SAY_S,
) -> bool:
    """Whether an assignment without the topics `names` lasts for `stays_s` while they are all there. False once it is another one,
    `still()`; a topic that stays away is liveness.py's to judge. `say()`: at once, and again every `say_s`: a line may be kept back
    for one of another assignment just before.
    """
    since_s = time.monotonic()
    said_s = since_s - say_s
    while still():
        if time.monotonic() - said_s >= say_s:
            said_s = time.monotonic()
            say()
        if time.monotonic() - since_s >= stays_s:
            return True
        await asyncio.sleep(poll_s)
        try:
            there = await topics(names)
        except Exception as error:  # noqa: BLE001  no answer says nothing
            log.warning("whether %s are there is not known: %r", ", ".join(sorted(names)), error)
            there = {}
        if set(names) - set(there):
            since_s = time.monotonic()
    return False
