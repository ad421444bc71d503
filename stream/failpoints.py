"""Named places where a test may end, freeze, stall or fail the process: every numbered step of a worker's work.

Off unless the environment arms some: DRIFTLINE_FAILPOINTS="before:snapshot.5-manifest@3=kill, ingest.applied=stall:10".
`@3`: at the third time that the place is reached (1 by default), once. Actions: kill (SIGKILL), freeze (SIGSTOP), term
(SIGTERM), stall:SECONDS (the whole process sleeps in place), fail (raises FailpointError). Each hit is first appended as
one line, "name action pid", to the file DRIFTLINE_FAILPOINT_LOG names. Cost of a place while nothing is armed: one look
at an empty dictionary.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from stream.protocol import STEPS
from stream.topics import TopicRole

FAILPOINTS_ENV = "DRIFTLINE_FAILPOINTS"
LOG_ENV = "DRIFTLINE_FAILPOINT_LOG"
SENT = tuple(
    role.value for role in (TopicRole.PANES, TopicRole.WINDOWS, TopicRole.ALERTS, TopicRole.DEAD_LETTERS)
)  # what leaves through a sender; the protocol's own records have steps

FAILPOINTS = (
    "ingest.decoded",  # collector: bytes are columns, the state is untouched
    "ingest.applied",  # the state has changed, nothing of it was handed over
    "ingest.posted",  # its outputs wait for the broker
    "merge.applied",  # the same of the monitor
    "merge.posted",
    *(f"{place}:{topic}" for topic in SENT for place in ("send", "acknowledged")),
    "decision.taken",  # held outputs, no manifest yet
    *(f"{place}:{step}" for step in STEPS for place in ("before", "after")),
    "rebalance.revoked",
    "rebalance.saved",
    "rebalance.assigned",
    "rebalance.restored",
    "stop.began",
    "stop.saved",
)
"""Every name, in the order of the work."""

COPYING = (
    "copy.taken",  # the next records are read, nothing is written
    "copy.sent",  # one batch of their copies is acknowledged, others may not be
    "copy.acknowledged",  # all are, before the commit
    "copy.committed",
)
"""The same where topics are re-keyed."""

SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "term": signal.SIGTERM}


class FailpointError(Exception):
    """What the action `fail` raises: an error that nobody foresaw."""


@dataclass(slots=True)
class _Armed:
    action: str
    seconds: float
    left: int


def parse(text: str) -> dict[str, _Armed]:
    """The armed failpoints of DRIFTLINE_FAILPOINTS. Raises ValueError for an unknown name or action."""
    armed = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        place, _, action = item.partition("=")
        name, _, nth = place.partition("@")
        verb, _, seconds = action.partition(":")
        if name not in (*FAILPOINTS, *COPYING):
            raise ValueError(f"{FAILPOINTS_ENV}: no failpoint {name!r}")
        if verb not in SIGNALS and verb not in {"stall", "fail"}:
            raise ValueError(f"{FAILPOINTS_ENV}: no action {action!r}")
        if verb == "fail" and name.startswith("acknowledged:"):
            raise ValueError(f"{FAILPOINTS_ENV}: {name} is a callback, nobody would hear of a failure there")
        armed[name] = _Armed(verb, float(seconds or 0), int(nth or 1))
    return armed


_armed: dict[str, _Armed] = parse(os.environ.get(FAILPOINTS_ENV, ""))


def reach(name: str) -> None:
    """Say that the process is at this place; the armed action happens here."""
    if _armed and name in _armed:
        _hit(name)


def _hit(name: str) -> None:
    armed = _armed[name]
    armed.left -= 1
    if armed.left:
        return
    del _armed[name]
    if LOG_ENV in os.environ:
        with Path(os.environ[LOG_ENV]).open("a", encoding="utf-8") as file:
            file.write(f"{name} {armed.action} {os.getpid()}\n")
    if armed.action in SIGNALS:
        os.kill(os.getpid(), SIGNALS[armed.action])
    elif armed.action == "stall":
        time.sleep(armed.seconds)
    else:
        raise FailpointError(name)
