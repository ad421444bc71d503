"""One partition number of one stage: its state, its position in the sources, and what may leave it when.

Invariants (join-and-state: snapshots, fencing, decisions)
1. State, vector and outputs change only in `apply` and `decide`, synchronously: never a half-applied cut.
2. Of one epoch there is one owner: the first claim in the log. Its claim carries the state that it starts from, so the
   states of a partition form one chain, and every manifest of a generation that could still commit is in it: the owner
   read the log after its assignment, and the fence shows that no later assignment existed by then.
3. From a decision on every output is held, in order, until a manifest that holds the decision was followed by a commit
   that the broker accepted. What a decision caused has left only if every later owner knows the decision.
4. What left without one is a function of the input log, so another owner repeats it. Except where another owner takes a
   decision at an earlier place: hence none before the position has passed everything that a predecessor can have read.
   The source's end, asked after the announcement was acknowledged, bounds that from above: a predecessor's marker that a
   monitor still accepts stands before the announcement, and what it had read was in the source by then.
5. Any failure kills the owner. There is no repair: a new owner loads the last manifest and repeats.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream.claims import REFUSE_LOSS, Claimant, Claimed, require_sources
from stream.container import ContainerError, UnknownVersion
from stream.epochs import stamp
from stream.journal import encode_decision
from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    Commit,
    Extent,
    Fenced,
    NewerState,
    NotReady,
    OwnerDead,
    Restored,
    Saved,
    StateCorrupt,
    Steps,
)
from stream.snapshot_format import HELD, Manifest, decode_outputs, encode_outputs
from stream.stage import Decision, Output, Stage, StageWaits
from stream.state_log import StateLog
from stream.state_writer import StateWriter


@dataclass(frozen=True, slots=True)
class _Cut:
    """What one snapshot saves, taken without a yield."""

    vector: dict[str, int]
    decided: int
    decisions: tuple[Decision, ...]
    held: tuple[Output, ...]  # to be sent after the commit
    blobs: dict[str, bytes]
    gone: frozenset[str]


class PartitionOwner:
    """Owner of partition `partition` of stage `stage_name` ("collector", "monitor").

    stage: new and empty; `restore` loads it. writer: unique among all owners that ever were, without "/" (a new one for
    every owner, also in one process). sources: topic roles that the stage reads. announcements: records that tell the
    monitors of the new owner, one per panes partition (a collector's). hold_all: outputs leave only after the commit of
    a manifest that holds them, for a stage whose outputs carry no epoch and that takes decisions: a predecessor that
    does not know of its end cannot say anything then. home: id of the cluster that holds the sources.
    """

    def __init__(
        self,
        stage_name: str,
        partition: int,
        stage: Stage,
        writer: str,
        *,
        sources: Sequence[str],
        announcements: Sequence[Output] = (),
        hold_all: bool = False,
        home: str = "",
        on_data_loss: str = REFUSE_LOSS,
    ) -> None:
        self.stage_name = stage_name
        self.partition = partition
        self.stage = stage
        self.writer = writer
        self.sources = tuple(sources)
        self.vector: dict[str, int] = {}
        self.epoch = 0
        self.ready = False
        self.dead = False
        self._announcements = tuple(announcements)
        self._hold_all = hold_all
        self._hold = hold_all
        self._queue: deque[Output] = deque()
        self._decided = 0
        self._pending: list[Decision] = []  # not journalled yet
        self._catch_up: dict[str, int] = {}
        self._empty = False  # no blob was ever saved, and nothing is applied yet
        self._claimant = Claimant(stage_name, partition, writer, sources, home=home, on_data_loss=on_data_loss)
        self._log: StateWriter | None = None
        self._busy = False

    # -- what the shell asks

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Decisions whose journal copy is not acknowledged."""
        return tuple(self._pending)

    @property
    def decided(self) -> int:
        """Number of the last decision."""
        return self._decided

    @property
    def held(self) -> tuple[Output, ...]:
        """Outputs that wait for the commit of a manifest, in order."""
        self._collect()
        return tuple(self._queue) if self._hold else ()

    @property
    def holding(self) -> bool:
        """Whether outputs are held."""
        return self._hold

    @property
    def changed(self) -> bool:
        """Whether a snapshot would save anything."""
        self._collect()
        if self._log is None or self._log.saved.sequence == 0:  # a claim alone proves nothing: state_log, rule 1
            return True
        return self.vector != self._log.saved.vector or bool(self._pending) or bool(self._queue)

    def may_decide(self) -> bool:
        """Whether a decision is allowed here: ready, and past everything that a predecessor can have read."""
        return self.ready and not self.dead and all(self.vector[s] >= end for s, end in self._catch_up.items())

    # -- the log-driven part

    def apply(self, source: str, batch: Any, next_offset: int, *, hold: bool = False) -> None:
        """Apply `batch`, which begins at `vector[source]` and ends before `next_offset`. `hold`: another owner might read it
        otherwise, so that outputs are held from here on as after a decision.

        StageWaits is raised with the vector where the stage stands: provide, and apply the rest. Any other exception of
        the stage kills the owner.
        """
        self._require_ready()
        self._empty, self._hold = False, self._hold or hold
        try:
            self.stage.apply(source, batch)
        except StageWaits as waits:
            self.vector[source] = max(self.vector[source], waits.next_offset)
            raise
        except BaseException:
            self._die()
            raise
        self.vector[source] = next_offset

    def decide(self, kind: str, body: dict[str, Any]) -> Decision:
        """Take a decision at this place of the log; all outputs are held from here on. Raises NotReady before its time."""
        self._require_ready()
        if not self.may_decide():
            raise NotReady(f"{self._name}: at {self.vector}, a predecessor may have been at {self._catch_up}")
        return self._decide(kind, body)

    def begin(self, kind: str, body: dict[str, Any]) -> Decision:
        """Take one of the first decisions of an empty state, before anything is applied; else NotReady.

        Unlike others it need not wait until the position has reached what a predecessor can have read: provided that every
        owner of the stage begins so, such a predecessor has held all its outputs, for it saved no manifest.
        """
        self._require_ready()
        if not self._empty:
            raise NotReady(f"{self._name}: at {self.vector} the state is not empty any more")
        return self._decide(kind, body)

    def _decide(self, kind: str, body: dict[str, Any]) -> Decision:
        decision = Decision(self._decided + 1, kind, dict(self.vector), body)
        try:
            self.stage.decide(decision)
        except BaseException:
            self._die()
            raise
        self._record(decision)
        return decision

    def _record(self, decision: Decision) -> None:
        self._decided = decision.number
        self._pending.append(decision)
        self._hold = True

    def take_outputs(self) -> tuple[Output, ...]:
        """Outputs to be sent now, in order, stamped; nothing while they are held. Call it after every apply."""
        self._require_ready()
        self._collect()
        if self._hold:
            return ()
        taken = tuple(stamp(output, self.epoch) for output in self._queue)
        self._queue.clear()
        return taken

    def _collect(self) -> None:
        self._queue.extend(self.stage.outbox)
        self.stage.outbox.clear()

    # -- restore

    def restore(self) -> Steps[Restored]:
        """Load the newest state and become its owner. Raises the errors of protocol.py; then the owner is dead."""
        return self._guarded(self._restore())

    def _restore(self) -> Steps[Restored]:
        if self.ready or self.dead:
            raise OwnerDead(f"{self._name}: restore is an owner's first act")
        # 1 to 6 load and claim
        claimed = yield from self._claimant.claim(self._load)
        self._adopt(claimed)
        # 7 void the predecessor's outputs, and learn how far it can have read
        yield from self.announce()
        if self.epoch > 1:
            bounds = yield Bounds("restore.7-ends", self.sources, self.partition)
            self._catch_up = {source: Extent(*found).end for source, found in bounds.items()}
        # 8 what may not have been said
        held = len(self._queue)
        decisions = len(self._pending)
        yield from self._journal("restore.8-journal", decisions)
        yield from self._release("restore.8-release", held)
        # 9
        self._hold = self._hold_all
        self.ready = True
        log = claimed.log
        return Restored(
            self.epoch,
            dict(self.vector),
            log.records,
            claimed.attempts,
            claimed.choice.corrupt + log.foreign + log.damaged,
            len(claimed.start.refs),
            claimed.start.live_bytes,
            decisions,
            held,
            claimed.gap,
            claimed.losses,
            log.read_bytes, log.interval_bytes, log.claims_bytes, log.whole, log.unfinished_bytes, log.unfinished,
            log.owners_before, log.largest_live_bytes(claimed.start),
        )  # fmt: skip

    def _load(self, log: StateLog, manifest: Manifest) -> None:
        blobs = {name: log.blob(ref) for name, ref in manifest.refs.items()}
        self._queue.clear()  # of a claim that was lost
        whole = {name: blob for name, blob in blobs.items() if blob is not None}  # all: a state is chosen only whole
        try:
            if HELD in whole:
                self._queue.extend(decode_outputs(whole.pop(HELD)))
            if whole:
                self.stage.load(whole)
        except UnknownVersion as error:
            raise NewerState(f"state of {self._name}: {error}") from error
        except ContainerError as error:
            raise StateCorrupt(f"state of {self._name}: {error}") from error

    def _adopt(self, claimed: Claimed) -> None:
        start = claimed.start
        self.epoch = start.epoch
        self.vector = dict(start.vector)
        self._decided = start.decided
        self._pending = list(start.decisions)
        self._hold = True
        self._log = StateWriter(claimed)
        self._empty = not start.refs
        for decision in start.decisions:
            if decision.number > start.applied:  # taken by a claim: no blob holds it yet
                self.stage.decide(decision)

    def announce(self) -> Steps[None]:
        """Tell every panes partition of the new epoch; lower ones are void from there on."""
        if self._announcements:
            yield Append("restore.7-announce", tuple(stamp(output, self.epoch) for output in self._announcements))

    # -- snapshot

    def snapshot(self) -> Steps[Saved | None]:
        """Save the state, commit, then release what waited for that. None: nothing has changed.

        Raises Fenced, OwnerDead, NotReady, ManifestTooLarge; then the owner is dead.
        """
        return self._guarded(self._snapshot())

    def _snapshot(self) -> Steps[Saved | None]:
        self._require_ready()
        if not self.changed:
            return None
        log = self._log
        assert log is not None
        # 1 blobs that keep the log's start from moving
        again = yield from log.read_far()
        # 2 the cut: no yield inside
        cut = self._cut(again)
        # 3 what the state has said before the cut is acknowledged, or in the manifest
        yield Acknowledged("snapshot.3-acknowledged")
        # 3 and stands in the logs that the state has read
        held_by_broker = yield Bounds("snapshot.3-sources", self.sources, self.partition)
        require_sources(self._name, self.partition, cut.vector, self.topics, held_by_broker)
        # 4, 5 blobs, then the manifest that names them
        manifest = yield from log.write(cut.blobs, cut.gone, cut.vector, cut.decided, cut.decisions)
        # 6 only an owner whose generation lasts goes on
        if not (yield Commit("snapshot.6-commit", dict(cut.vector), self.partition, log.metadata)):
            raise Fenced(f"{self._name}: lost at manifest {manifest.sequence} of epoch {self.epoch}")
        # 7, 8 what waited for the commit: the journal first, so that nothing is seen without its reason
        yield from self._journal("snapshot.7-journal", len(cut.decisions))
        released = yield from self._release("snapshot.8-release", len(cut.held) or self._releasable())
        # 9 what the newest manifest but one does not need
        yield from log.tombstones()
        return Saved(
            dict(cut.vector),
            manifest.sequence,
            len(cut.blobs),
            sum(map(len, cut.blobs.values())),
            manifest.live_bytes,
            len(cut.decisions),
            released,
        )

    @property
    def topics(self) -> Mapping[str, str]:
        """Source -> id of the topic that the vector is a position in; "" or missing = not known."""
        return self._log.saved.topics if self._log is not None else {}

    def _cut(self, again: dict[str, bytes]) -> _Cut:
        changes = self.stage.changed_blobs()
        self._collect()
        held = tuple(self._queue)
        self._hold = self._hold or bool(held)  # not taken in time: they keep their place before all that follows
        blobs = again | {name: blob for name, blob in changes.items() if blob is not None}
        gone = {name for name, blob in changes.items() if blob is None}
        for name in gone:
            blobs.pop(name, None)
        if held:
            blobs[HELD] = encode_outputs(held)
        else:
            gone.add(HELD)
        return _Cut(dict(self.vector), self._decided, tuple(self._pending), held, blobs, frozenset(gone))

    def _journal(self, step: str, count: int) -> Steps[None]:
        if count:
            copies = tuple(encode_decision(self.stage_name, self.partition, d) for d in self._pending[:count])
            yield Append(step, copies)
            del self._pending[:count]

    def _release(self, step: str, count: int) -> Steps[int]:
        """Send the first `count` held outputs, and, unless a newer decision holds them, those that queued up behind."""
        released = 0
        while count:
            batch = [self._queue[place] for place in range(count)]
            yield Append(step, tuple(stamp(output, self.epoch) for output in batch))
            for _ in batch:
                self._queue.popleft()
            released += count
            count = self._releasable()
        return released

    def _releasable(self) -> int:
        """How many more may go; with none left and no newer decision the hold ends, at this very place."""
        if self._pending or self._hold_all:
            return 0
        self._collect()
        self._hold = bool(self._queue)
        return len(self._queue)

    # -- plumbing

    def _guarded(self, steps: Steps[Any]) -> Steps[Any]:
        if self._busy:
            raise RuntimeError(f"{self._name}: one generator at a time")
        self._busy = True
        try:
            return (yield from steps)
        except BaseException:
            self._die()
            raise
        finally:
            self._busy = False

    def _die(self) -> None:
        self.dead = True
        self.ready = False

    def _require_ready(self) -> None:
        if self.dead:
            raise OwnerDead(f"{self._name}: failed before, load it anew")
        if not self.ready:
            raise NotReady(f"{self._name}: not loaded yet")

    @property
    def _name(self) -> str:
        return f"{self.stage_name} {self.partition}"
