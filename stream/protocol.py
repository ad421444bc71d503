"""The contract between the ownership protocol, which does no I/O, and whoever executes its effects.

`PartitionOwner.restore()` and `.snapshot()` are generators. They yield an Effect, receive its reply, and go on; the same
generator is driven by the worker (asyncio, Kafka) and by the simulator (in memory, with a crash between any two effects).

    reply = None
    while True:
        try: effect = steps.send(reply)
        except StopIteration as stop: return stop.value
        reply = execute(effect)            # an exception is thrown into the generator: steps.throw(error)

Rules for the executor
1. An effect that failed, or whose outcome is unknown, is an exception. Retrying inside the executor is allowed for every
   effect but `Commit` after the broker refused the generation. An exception or `steps.close()` ends the owner: it is
   `dead`, nothing of it may be used again, and the partition is loaded anew by a new owner with a new `writer`.
2. A partition has one sender. `Append` goes through it, after everything that `take_outputs` gave before.
3. A `barrier` output is sent only when everything before it in that sender is acknowledged, other barriers directly
   before it left out. What follows one need not wait. Else the order of arrival does not matter, and a record may arrive
   twice, also much later. State logs: min.compaction.lag.ms exceeds the time that a claim takes to be read back.
4. `Commit` is checked against the generation that the owner was made for: never renewed under a newer assignment.
5. `apply`, `decide` and `take_outputs` may be called while a generator waits for a reply; only one generator at a time.
6. After EVERY rebalance every partition is loaded by a new owner, also one that stayed: a rival that read the log before
   may have claimed it meanwhile, and only a claim of one's own shows that.
`step` names the numbered step; a failpoint stands before and after each.
"""

# ruff: noqa: N818 - the errors are named after what is wrong
from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypeVar

from stream.stage import Output

RESTORE_STEPS = (
    "restore.1-metadata",
    "restore.1-log",
    "restore.1-log-whole",  # only where the metadata's offset hid something
    "restore.2-bounds",  # the blobs are loaded by now
    "restore.3-fence",
    "restore.4-claim",
    "restore.5-read-back",
    "restore.7-announce",
    "restore.7-ends",
    "restore.8-journal",
    "restore.8-release",
)  # 9: ready
SNAPSHOT_STEPS = (
    "snapshot.1-read-far",
    "snapshot.3-acknowledged",  # 2 is the cut, without an effect
    "snapshot.3-sources",
    "snapshot.4-claim",  # only when the claim lies far back
    "snapshot.4-blobs",
    "snapshot.5-manifest",
    "snapshot.6-commit",
    "snapshot.7-journal",
    "snapshot.8-release",
    "snapshot.9-tombstones",
)
STEPS = RESTORE_STEPS + SNAPSHOT_STEPS


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of a state log; `value` None is a tombstone."""

    offset: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class LogSlice:
    """What a reader of a log saw. `beginning`, `end`: the broker's offsets when it started; `start`: where it was sent;
    `position`: the offset after the last one passed, ≥ end unless something is wrong. Records in offset order.
    """

    beginning: int
    end: int
    start: int
    position: int
    records: Sequence[LogRecord]


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that only the outside can do."""

    step: str


@dataclass(frozen=True, slots=True)
class ReadMetadata(Effect):
    """Reply str: metadata of the group's commit of this partition of `sources` ("" = none, or not to be had)."""

    sources: tuple[str, ...]
    partition: int


@dataclass(frozen=True, slots=True)
class ReadLog(Effect):
    """Reply LogSlice: every record from `start` (None = the beginning) to the end as of now."""

    topic: str
    partition: int
    start: int | None = None


@dataclass(frozen=True, slots=True)
class ReadAt(Effect):
    """Reply tuple[bytes | None, ...]: the values at these offsets, None where compaction has removed one."""

    topic: str
    partition: int
    offsets: tuple[int, ...]


class Extent(NamedTuple):
    """What the broker holds of a source partition. `topic_id` "" = it knows no ids; `topic`: its name, for messages."""

    beginning: int
    end: int
    topic_id: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Bounds(Effect):
    """Reply dict[source, Extent or its first fields]: what the broker holds of this partition of each source now."""

    sources: tuple[str, ...]
    partition: int


@dataclass(frozen=True, slots=True)
class Append(Effect):
    """Reply tuple[int, ...]: the offset of each output, once ALL are acknowledged by all replicas. Epochs are stamped."""

    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged(Effect):
    """Reply None, once everything that `take_outputs` has given so far is acknowledged."""


@dataclass(frozen=True, slots=True)
class Commit(Effect):
    """Reply bool: the group's offsets of this partition are `vector` (0 included) with `metadata`; False = the broker
    refused, this member's generation is over.
    """

    vector: dict[str, int]
    partition: int
    metadata: str


T = TypeVar("T")
Steps: TypeAlias = Generator[Effect, Any, T]


class ProtocolError(Exception):
    """Something of the ownership protocol that its caller must know by name."""


class Fenced(ProtocolError):
    """The broker refused the commit: another assignment holds the partition. Wait for the next one."""


class ClaimsLost(ProtocolError):
    """Other writers were first in every attempt."""


class OwnerDead(ProtocolError):
    """The owner has failed before; the partition must be loaded anew."""


class NotReady(ProtocolError):
    """Not loaded yet, or a decision before the predecessor's position is reached."""


class LogIncomplete(ProtocolError):
    """The reader did not see the log from its beginning to its end: nothing may be concluded from it."""


class StateLost(ProtocolError):
    """Records exist and the claim, manifest or blobs that they belong to do not: never taken for an empty partition."""


class StateCorrupt(ProtocolError):
    """The newest manifest is damaged and an older one would forget decisions that were in force."""


class NewerState(ProtocolError):
    """Written by a newer version of driftline; refused, nothing is overwritten."""


class ForeignState(ProtocolError):
    """Made for another cluster, whose offsets mean nothing here: a copied topic; refused, nothing is overwritten."""


class ManifestTooLarge(ProtocolError):
    """More blobs than one manifest record can name."""


class InputLost(ProtocolError):
    """A source is another topic than the one that the state has read, or ends before the state's position."""


@dataclass(frozen=True, slots=True)
class Restored:
    """Summary of one restore. `corrupt`: records passed over; `attempts`: claims written; `gap`: events lost to retention;
    `read_bytes` of the state log, from its beginning where `whole`; `interval_bytes`: what one snapshot wrote at most;
    `claims_bytes`: of the claims read, those of owners that died before they had saved anything included; `unfinished_bytes`:
    of the `unfinished` snapshots in which some of the `owners_before` died; `largest_live_bytes`: of the last three states.
    """

    epoch: int
    vector: dict[str, int]
    records: int
    attempts: int
    corrupt: int
    blobs: int
    live_bytes: int
    decisions: int
    held: int
    gap: dict[str, int] = field(default_factory=dict)
    losses: tuple[str, ...] = ()  # what `on_data_loss: reset` passed over, in words
    read_bytes: int = 0
    interval_bytes: int = 0
    claims_bytes: int = 0
    whole: bool = False
    unfinished_bytes: int = 0
    unfinished: int = 0
    owners_before: int = 0
    largest_live_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """Summary of one snapshot: what was written, what is live, decisions that became durable, outputs released."""

    vector: dict[str, int]
    sequence: int
    blobs: int
    written_bytes: int
    live_bytes: int
    decisions: int
    released: int
