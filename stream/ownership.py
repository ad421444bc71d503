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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import crc32c

from stream.container import ContainerError, UnknownVersion
from stream.journal import encode_decision
from stream.panes import EPOCH_HEADER
from stream.protocol import (
    Acknowledged,
    Append,
    Bounds,
    ClaimsLost,
    Commit,
    Fenced,
    InputLost,
    ManifestTooLarge,
    NewerState,
    NotReady,
    OwnerDead,
    ReadAt,
    ReadLog,
    ReadMetadata,
    Restored,
    Saved,
    StateCorrupt,
    StateLost,
    Steps,
)
from stream.snapshot_format import (
    HELD,
    MANIFEST_BYTES_MAX,
    BlobRef,
    Manifest,
    blob_prefix,
    chunks,
    commit_metadata,
    decode_outputs,
    encode_manifest,
    encode_outputs,
    join_chunks,
    metadata_offset,
    record_bytes,
)
from stream.stage import Decision, Output, Stage, StageWaits
from stream.state_log import Choice, StateLog, lowest_offset
from stream.topics import TopicRole

CLAIM_ATTEMPTS_MAX = 100  # each lost one needs another writer that passed its own fence in between
FAR_FACTOR = 2  # a blob further back than this many live sizes is written again
FAR_FLOOR_BYTES = 1 << 20  # small states need not move: reading a MiB takes milliseconds
GAP = "gap"  # decision: the source began after the position; {source: [from, to]}


def stamp(output: Output, epoch: int) -> Output:
    """The output as it is sent: panes and markers carry the epoch of the owner that sends them."""
    if output.topic != TopicRole.PANES:
        return output
    kept = tuple(header for header in output.headers if header[0] != EPOCH_HEADER)
    return replace(output, headers=(*kept, (EPOCH_HEADER, str(epoch).encode())))


def epoch_of(headers: Iterable[tuple[str, bytes]]) -> int:
    """Inverse of stamp; 0 = not stamped."""
    return next((int(value) for name, value in headers if name == EPOCH_HEADER), 0)


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
    does not know of its end cannot say anything then.
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
    ) -> None:
        if "/" in writer or not writer:
            raise ValueError(f"writer {writer!r}: empty, or with a slash")
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
        self._saved: Manifest | None = None
        self._claim_offset = 0
        self._log_bytes = 0
        self._retired: tuple[bytes, ...] = ()  # keys given up by the newest manifest; tombstones after the next one
        self._busy = False

    # -- what the shell asks

    @property
    def state_topic(self) -> str:
        """Role of the state log."""
        return f"state.{self.stage_name}"

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
        return self._saved is None or self.vector != self._saved.vector or bool(self._pending) or bool(self._queue)

    def may_decide(self) -> bool:
        """Whether a decision is allowed here: ready, and past everything that a predecessor can have read."""
        return self.ready and not self.dead and all(self.vector[s] >= end for s, end in self._catch_up.items())

    # -- the log-driven part

    def apply(self, source: str, batch: Any, next_offset: int) -> None:
        """Apply `batch`, which begins at `vector[source]` and ends before `next_offset`.

        StageWaits is raised with the vector where the stage stands: provide, and apply the rest. Any other exception of
        the stage kills the owner.
        """
        self._require_ready()
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
        for attempt in range(CLAIM_ATTEMPTS_MAX):
            # 1 the whole log, 2 the newest manifest of the highest epoch's first claimer
            log, choice = yield from self._read_state()
            start, gap = yield from self._start(choice, f"{self.writer}.{attempt}")
            # 3 fence: no later assignment existed after the log was read
            if not (yield Commit("restore.3-fence", dict(start.vector), self.partition, _metadata(choice))):
                raise Fenced(f"{self._name}: lost before the claim of epoch {start.epoch}")
            # 4 claim, with the state to start from
            offset = (yield from self._append_state("restore.4-claim", ((start.key, _encoded(start)),)))[0]
            # 5 the first claim of the highest epoch wins
            log.add((yield ReadLog("restore.5-read-back", self.state_topic, self.partition, log.position)))
            if self._won(log, start):
                break
        else:
            raise ClaimsLost(f"{self._name}: {CLAIM_ATTEMPTS_MAX} claims lost, the last of epoch {start.epoch}")
        # 6 load
        self._load(log, start, choice, offset)
        # 7 void the predecessor's outputs, and learn how far it can have read
        yield from self.announce()
        if start.epoch > 1:
            bounds = yield Bounds("restore.7-ends", self.sources, self.partition)
            self._catch_up = {source: end for source, (_, end) in bounds.items()}
        # 8 what may not have been said
        held = len(self._queue)
        decisions = len(self._pending)
        yield from self._journal("restore.8-journal", decisions)
        yield from self._release("restore.8-release", held)
        # 9
        self._hold = self._hold_all
        self.ready = True
        return Restored(
            self.epoch,
            dict(self.vector),
            log.records,
            attempt + 1,
            choice.corrupt + log.foreign,
            len(start.refs),
            start.live_bytes,
            decisions,
            held,
            gap,
        )

    def _read_state(self) -> Steps[tuple[StateLog, Choice]]:
        metadata = yield ReadMetadata("restore.1-metadata", self.sources, self.partition)
        log = StateLog(self.stage_name, self.partition)
        log.add((yield ReadLog("restore.1-log", self.state_topic, self.partition, metadata_offset(metadata))))
        choice = log.choose()
        if choice is None:
            log = StateLog(self.stage_name, self.partition)
            log.add((yield ReadLog("restore.1-log-whole", self.state_topic, self.partition, None)))
            choice = log.choose()
        if choice is None:
            raise StateLost(f"{self._name}: the state log cannot be read from its beginning")
        return log, choice

    def _start(self, choice: Choice, writer: str) -> Steps[tuple[Manifest, dict[str, int]]]:
        """The claim to write: the chosen state under a new epoch. A source that begins later is a gap, a decision."""
        bounds = yield Bounds("restore.2-bounds", self.sources, self.partition)
        found = choice.manifest
        vector = dict(found.vector) if found else {}
        gaps: dict[str, list[int]] = {}
        for source in self.sources:
            beginning, end = bounds[source]
            position = vector.setdefault(source, beginning)
            if position > end:
                raise InputLost(f"{self._name}: {source} ends at {end}, the state has read to {position}")
            if position < beginning:
                gaps[source] = [position, beginning]
        decided = found.decided if found else 0
        decisions = found.decisions if found else ()
        if gaps:
            decided += 1
            decisions = (*decisions, Decision(decided, GAP, dict(vector), gaps))
            vector |= {source: to for source, (_, to) in gaps.items()}
        start = Manifest(
            self.stage_name,
            self.partition,
            choice.epoch + 1,
            writer,
            0,
            vector,
            decided,
            decisions,
            dict(found.refs) if found else {},
            found.log_bytes if found else 0,
        )
        return start, {source: to - position for source, (position, to) in gaps.items()}

    def _won(self, log: StateLog, start: Manifest) -> bool:
        return log.highest_epoch() == start.epoch and log.winner(start.epoch) == start.writer

    def _load(self, log: StateLog, start: Manifest, choice: Choice, offset: int) -> None:
        blobs = {name: log.blob(ref) for name, ref in start.refs.items()}
        whole = {name: blob for name, blob in blobs.items() if blob is not None}
        try:
            if HELD in whole:
                self._queue.extend(decode_outputs(whole.pop(HELD)))
            if whole:
                self.stage.load(whole)
        except UnknownVersion as error:
            raise NewerState(f"state of {self._name}: {error}") from error
        except ContainerError as error:
            raise StateCorrupt(f"state of {self._name}: {error}") from error
        self.epoch = start.epoch
        self.vector = dict(start.vector)
        self._decided = start.decided
        self._pending = list(start.decisions)
        self._hold = True
        self._saved = start
        self._claim_offset = offset
        self._log_bytes = start.log_bytes + log.bytes_since(choice.manifest_offset - 1)
        self._retired = log.garbage(start, (start.key,))

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
        # 1 blobs that keep the log's start from moving
        again = yield from self._read_far()
        # 2 the cut: no yield inside
        cut = self._cut(again)
        # 3 what the state has said before the cut is acknowledged, or in the manifest
        yield Acknowledged("snapshot.3-acknowledged")
        # 4, 5 blobs, then the manifest that names them
        manifest, given_up = yield from self._write_blobs(cut)
        offset = (yield from self._append_state("snapshot.5-manifest", ((manifest.key, _encoded(manifest)),)))[0]
        # 6 only an owner whose generation lasts goes on
        lowest = lowest_offset(self._claim_offset, offset, manifest.refs)
        if not (yield Commit("snapshot.6-commit", dict(cut.vector), self.partition, commit_metadata(lowest))):
            raise Fenced(f"{self._name}: lost at manifest {manifest.sequence} of epoch {self.epoch}")
        self._saved = manifest
        # 7, 8 what waited for the commit: the journal first, so that nothing is seen without its reason
        yield from self._journal("snapshot.7-journal", len(cut.decisions))
        released = yield from self._release("snapshot.8-release", len(cut.held) or self._releasable())
        # 9 the newest manifest but one stays whole, should the newest be damaged
        tombstones, self._retired = self._retired, given_up
        if tombstones:
            yield from self._append_state("snapshot.9-tombstones", tuple((key, None) for key in tombstones))
        return Saved(
            dict(cut.vector),
            manifest.sequence,
            len(cut.blobs),
            sum(map(len, cut.blobs.values())),
            manifest.live_bytes,
            len(cut.decisions),
            released,
        )

    def _read_far(self) -> Steps[dict[str, bytes]]:
        saved = self._saved
        assert saved is not None
        reach = max(FAR_FACTOR * saved.live_bytes, FAR_FLOOR_BYTES)
        again: dict[str, bytes] = {}
        for name, ref in saved.refs.items():
            if name != HELD and self._log_bytes - ref.log_bytes > reach:
                pieces = yield ReadAt("snapshot.1-read-far", self.state_topic, self.partition, ref.offsets)
                blob = join_chunks(ref, pieces)
                if blob is not None:  # else it stays where it is: a restore will judge it
                    again[name] = blob
        return again

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

    def _write_blobs(self, cut: _Cut) -> Steps[tuple[Manifest, tuple[bytes, ...]]]:
        """Write the cut's blobs; the manifest of it, and the keys that it gives up."""
        saved = self._saved
        assert saved is not None
        sequence = saved.sequence + 1
        refs: dict[str, BlobRef] = {}
        records: list[tuple[bytes, bytes | None]] = []
        for name, blob in sorted(cut.blobs.items()):
            pieces = chunks(blob)
            prefix = blob_prefix(self.partition, self.epoch, saved.writer, sequence, name)
            ref = BlobRef(prefix, len(blob), crc32c.crc32c(blob), tuple(range(len(pieces))), self._log_bytes)
            refs[name] = ref
            records += zip(ref.keys, pieces, strict=True)
        if records:
            offsets = iter((yield from self._append_state("snapshot.4-blobs", tuple(records))))
            refs = {name: replace(ref, offsets=tuple(next(offsets) for _ in ref.offsets)) for name, ref in refs.items()}
        kept = {name: ref for name, ref in saved.refs.items() if name not in cut.gone and name not in refs}
        given_up = [key for name, ref in saved.refs.items() if name not in kept for key in ref.keys]
        if saved.sequence:  # the claim itself stays: it says who owns the epoch
            given_up.append(saved.key)
        manifest = replace(
            saved,
            sequence=sequence,
            vector=cut.vector,
            decided=cut.decided,
            decisions=cut.decisions,
            refs=kept | refs,
            log_bytes=self._log_bytes,
        )
        return manifest, tuple(given_up)

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

    def _append_state(self, step: str, records: Sequence[tuple[bytes, bytes | None]]) -> Steps[tuple[int, ...]]:
        outputs = tuple(Output(self.state_topic, key, value, self.partition) for key, value in records)
        offsets: tuple[int, ...] = yield Append(step, outputs)
        self._log_bytes += sum(record_bytes(key, value) for key, value in records)
        return offsets

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


def _encoded(manifest: Manifest) -> bytes:
    data = encode_manifest(manifest)
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestTooLarge(f"{len(manifest.refs)} blobs: {len(data)} bytes, at most {MANIFEST_BYTES_MAX}")
    return data


def _metadata(choice: Choice) -> str:
    """Of the fence's commit: nothing that the chosen state needs lies before; without a state, everything does."""
    if choice.manifest is None:
        return ""
    return commit_metadata(lowest_offset(choice.claim_offset, choice.manifest_offset, choice.manifest.refs))
