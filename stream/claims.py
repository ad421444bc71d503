"""How a writer becomes the owner of a partition: steps 1 to 5 of a restore (protocol.RESTORE_STEPS).

Read the state log, choose the state to start from, fence, write a claim of the next epoch that carries this state, read
back. The first claim of the highest epoch wins; who lost begins again at the log, if the fence still lets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.protocol import (
    Append,
    Bounds,
    ClaimsLost,
    Commit,
    Fenced,
    InputLost,
    ManifestTooLarge,
    ReadLog,
    ReadMetadata,
    StateLost,
    Steps,
)
from stream.snapshot_format import MANIFEST_BYTES_MAX, Manifest, commit_metadata, encode_manifest, metadata_offset
from stream.stage import Decision, Output
from stream.state_log import Choice, StateLog, lowest_offset

CLAIM_ATTEMPTS_MAX = 100  # each lost one needs another writer that passed its own fence in between
GAP = "gap"  # decision: the source began after the position; {source: [from, to]}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that has won. `start`: the claim itself, a manifest; `offset`: where it stands; `gap`: events lost, by source."""

    log: StateLog
    choice: Choice
    start: Manifest
    offset: int
    attempts: int
    gap: dict[str, int]


class Claimant:
    """One writer's attempts at one partition."""

    def __init__(self, stage_name: str, partition: int, writer: str, sources: Sequence[str]) -> None:
        if "/" in writer or not writer:
            raise ValueError(f"writer {writer!r}: empty, or with a slash")
        self._stage_name = stage_name
        self._partition = partition
        self._writer = writer
        self._sources = tuple(sources)
        self._topic = f"state.{stage_name}"

    def claim(self) -> Steps[Claimed]:
        """Raises Fenced, ClaimsLost, LogIncomplete, StateLost, StateCorrupt, NewerState, InputLost."""
        for attempt in range(CLAIM_ATTEMPTS_MAX):
            # 1 the whole log, 2 the newest manifest of the highest epoch's first claimer
            log, choice = yield from self._read_state()
            start, gap = yield from self._start(choice, f"{self._writer}.{attempt}")
            # 3 fence: no later assignment existed after the log was read
            if not (yield Commit("restore.3-fence", dict(start.vector), self._partition, _metadata(choice))):
                raise Fenced(f"{self._name}: lost before the claim of epoch {start.epoch}")
            # 4 claim, with the state to start from
            claim = Output(self._topic, start.key, encoded(start), self._partition)
            (offset,) = yield Append("restore.4-claim", (claim,))
            # 5 the first claim of the highest epoch wins
            log.add((yield ReadLog("restore.5-read-back", self._topic, self._partition, log.position)))
            if self._won(log, start):
                return Claimed(log, choice, start, offset, attempt + 1, gap)
        raise ClaimsLost(f"{self._name}: {CLAIM_ATTEMPTS_MAX} claims lost, the last of epoch {start.epoch}")

    def _read_state(self) -> Steps[tuple[StateLog, Choice]]:
        metadata = yield ReadMetadata("restore.1-metadata", self._sources, self._partition)
        log = StateLog(self._stage_name, self._partition)
        log.add((yield ReadLog("restore.1-log", self._topic, self._partition, metadata_offset(metadata))))
        choice = log.choose()
        if choice is None:
            log = StateLog(self._stage_name, self._partition)
            log.add((yield ReadLog("restore.1-log-whole", self._topic, self._partition, None)))
            choice = log.choose()
        if choice is None:
            raise StateLost(f"{self._name}: the state log cannot be read from its beginning")
        return log, choice

    def _start(self, choice: Choice, writer: str) -> Steps[tuple[Manifest, dict[str, int]]]:
        """The claim to write: the chosen state under a new epoch. A source that begins later is a gap, a decision."""
        bounds = yield Bounds("restore.2-bounds", self._sources, self._partition)
        found = choice.manifest
        vector = dict(found.vector) if found else {}
        gaps: dict[str, list[int]] = {}
        for source in self._sources:
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
            self._stage_name,
            self._partition,
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

    @property
    def _name(self) -> str:
        return f"{self._stage_name} {self._partition}"


def encoded(manifest: Manifest) -> bytes:
    """Raises ManifestTooLarge."""
    data = encode_manifest(manifest)
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestTooLarge(f"{len(manifest.refs)} blobs: {len(data)} bytes, at most {MANIFEST_BYTES_MAX}")
    return data


def _metadata(choice: Choice) -> str:
    """Of the fence's commit: nothing that the chosen state needs lies before; without a state, everything does."""
    if choice.manifest is None:
        return ""
    return commit_metadata(lowest_offset(choice.claim_offset, choice.manifest_offset, choice.manifest.refs))
