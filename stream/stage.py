"""What every processor is: a deterministic function of its input logs and of numbered decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Output(NamedTuple):
    """One record to be written; a tuple, as there are many of them. `topic` is a role of topics.Role; `partition` None = chosen by the key.

    `barrier`: everything before it in the outbox must be acknowledged first (markers). The owner's epoch is stamped on
    panes and markers as a Kafka header when they are sent, never earlier: a restored output goes out under the new owner's.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    barrier: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the input log does not determine. `number` counts from 1 per (stage, partition); `position` is the offset
    vector at which it was taken; `kind` and `body` (JSON values only) say what.
    """

    number: int
    kind: str
    position: dict[str, int]
    body: dict[str, Any]


class StageWaits(Exception):  # noqa: N818 - no error: the owner provides and goes on
    """The stage needs something from outside before the record at `next_offset`; everything before it is applied.

    The only exception out of `apply` that leaves the state whole.
    """

    def __init__(self, message: str, next_offset: int) -> None:
        super().__init__(message)
        self.next_offset = next_offset


class Stage(Protocol):
    """Stage of one partition number. No clock, no random generator, no I/O; `apply` and `decide` are synchronous.

    An exception out of `apply` or `decide`, but StageWaits, leaves the state unusable: the owner reloads it.
    """

    outbox: list[Output]

    def apply(self, source: str, batch: Any) -> None:
        """Count one batch of the topic with role `source`; outputs are appended to `outbox` in order."""

    def decide(self, decision: Decision) -> None:
        """Apply a decision at this very place of the log; after `load`, or when empty, also what a claim decided."""

    def changed_blobs(self) -> dict[str, bytes | None]:
        """Every blob that changed since the last call, encoded; None = gone. One consistent cut, no I/O."""

    def load(self, blobs: Mapping[str, bytes]) -> None:
        """Become the state that these blobs (all live ones, by name) describe."""
