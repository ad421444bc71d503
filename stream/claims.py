"""How a writer becomes the owner of a partition: steps 1 to 5 of a restore (protocol.RESTORE_STEPS).

Read the state log, choose the state to start from and load it, fence, write a claim of the next epoch that carries this
state, read back. The first claim of the highest epoch wins; who lost begins again at the log, if the fence still lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream.protocol import (
    Append,
    Bounds,
    ClaimsLost,
    Commit,
    Extent,
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
RESET = "reset"  # decision: the source is another log, or ends before the position; {source: {from, to, end, was, is}}
REFUSE_LOSS, RESET_LOSS = "refuse", "reset"  # what on_data_loss may be


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim that has won. `start`: the claim itself, a manifest; `offset`: where it stands; `gap`: events lost, by source;
    `losses`: logs that were given up, in words.
    """

    log: StateLog
    choice: Choice
    start: Manifest
    offset: int
    attempts: int
    gap: dict[str, int]
    losses: tuple[str, ...] = ()


class Claimant:
    """One writer's attempts at one partition."""

    def __init__(
        self,
        stage_name: str,
        partition: int,
        writer: str,
        sources: Sequence[str],
        *,
        home: str = "",
        on_data_loss: str = REFUSE_LOSS,
    ) -> None:
        if "/" in writer or not writer:
            raise ValueError(f"writer {writer!r}: empty, or with a slash")
        self._stage_name = stage_name
        self._partition = partition
        self._writer = writer
        self._sources = tuple(sources)
        self._home = home
        self._on_data_loss = on_data_loss
        self._topic = f"state.{stage_name}"

    def claim(self, load: Callable[[StateLog, Manifest], None]) -> Steps[Claimed]:
        """`load` becomes the chosen state, before anything is written: what it refuses stays as it is.

        Raises Fenced, ClaimsLost, LogIncomplete, StateLost, StateCorrupt, NewerState, ForeignState, InputLost.
        """
        for attempt in range(CLAIM_ATTEMPTS_MAX):
            # 1 the whole log, 2 the newest manifest of the highest epoch's first claimer
            log, choice = yield from self._read_state()
            if choice.manifest is not None:
                load(log, choice.manifest)
            start, gap, losses = yield from self._start(log, choice, f"{self._writer}.{attempt}")
            # 3 fence: no later assignment existed after the log was read
            if not (yield Commit("restore.3-fence", dict(start.vector), self._partition, _metadata(choice))):
                raise Fenced(f"{self._name}: lost before the claim of epoch {start.epoch}")
            # 4 claim, with the state to start from
            claim = Output(self._topic, start.key, encoded(start), self._partition)
            (offset,) = yield Append("restore.4-claim", (claim,))
            # 5 the first claim of the highest epoch wins
            log.add((yield ReadLog("restore.5-read-back", self._topic, self._partition, log.position)))
            if self._won(log, start):
                return Claimed(log, choice, start, offset, attempt + 1, gap, losses)
        raise ClaimsLost(f"{self._name}: {CLAIM_ATTEMPTS_MAX} claims lost, the last of epoch {start.epoch}")

    def _read_state(self) -> Steps[tuple[StateLog, Choice]]:
        metadata = yield ReadMetadata("restore.1-metadata", self._sources, self._partition)
        log = StateLog(self._stage_name, self._partition, self._home)
        log.add((yield ReadLog("restore.1-log", self._topic, self._partition, metadata_offset(metadata))))
        choice = log.choose()
        if choice is None:
            log = StateLog(self._stage_name, self._partition, self._home)
            log.add((yield ReadLog("restore.1-log-whole", self._topic, self._partition, None)))
            choice = log.choose()
        if choice is None:
            raise StateLost(f"{self._name}: the state log cannot be read from its beginning")
        if choice.epoch == 0 and metadata_offset(metadata) is not None:
            raise StateLost(
                f"{self._name}: the group has committed with a state, and its topic is empty: it was made anew or emptied."
                " An empty state would repeat epochs that the monitors do not accept. Restore the topic, or start with"
                " another prefix"
            )
        return log, choice

    def _start(
        self, log: StateLog, choice: Choice, writer: str
    ) -> Steps[tuple[Manifest, dict[str, int], tuple[str, ...]]]:
        """The claim to write: the chosen state under a new epoch, and what is missing before it can go on.

        A source that begins later is a gap. Another log than the one that was read, or one that ends before the position,
        is refused, or with on_data_loss: reset given up. Either is a decision: the log does not tell it.
        """
        bounds = yield Bounds("restore.2-bounds", self._sources, self._partition)
        found = choice.manifest
        vector = dict(found.vector) if found else {}
        known = dict(found.topics) if found else {}
        gaps: dict[str, Any] = {}
        resets: dict[str, Any] = {}
        losses = []
        for source in self._sources:
            extent = Extent(*bounds[source])
            position = vector.setdefault(source, extent.beginning)
            loss = what_is_lost(source, self._partition, position, known.get(source, ""), extent)
            if loss and self._on_data_loss != RESET_LOSS:
                raise InputLost(f"{self._name}: {loss}. {REMEDY}")
            if loss:
                losses.append(loss)
                to = restart_at(known.get(source, ""), extent)
                ids = {"was": known.get(source, ""), "is": extent.topic_id}
                resets[source] = {"from": position, "to": to, "end": extent.end} | ids
                vector[source] = to
            elif position < extent.beginning:
                gaps[source] = [position, extent.beginning]
                vector[source] = extent.beginning
            known[source] = extent.topic_id or known.get(source, "")
        decided = found.decided if found else 0
        decisions = found.decisions if found else ()
        before = dict(found.vector) if found else {}
        for kind, body in ((GAP, gaps), (RESET, resets)):
            if body:
                decided += 1
                decisions = (*decisions, Decision(decided, kind, dict(before), body))
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
            # what stands between the state and the claim counts too: else it would not move the start of the log
            found.log_bytes + log.bytes_since(choice.manifest_offset - 1) if found else 0,
            found.name if found else "",
            self._home,
            known,
            found.applied if found else 0,
        )
        return start, {source: to - position for source, (position, to) in gaps.items()}, tuple(losses)

    def _won(self, log: StateLog, start: Manifest) -> bool:
        return log.highest_epoch() == start.epoch and log.winner(start.epoch) == start.writer

    @property
    def _name(self) -> str:
        return f"{self._stage_name} {self._partition}"


REMEDY = (
    "Nothing was changed. If the old log can be had back, restore it; else set on_data_loss: reset, and the state goes on"
    " with the log that is there"
)


def what_is_lost(source: str, partition: int, position: int, known_id: str, extent: Extent) -> str:
    """Why `position`, in the topic with id `known_id` ("" = not known), is none in the log as it is; "" = it is."""
    topic = f"{extent.topic or source}-{partition}"
    holds = f"the log holds offsets {extent.beginning} to {extent.end}, the state has read to {position}"
    if known_id and extent.topic_id and known_id != extent.topic_id:
        return f"{topic} was deleted and made again: its id was {known_id} and is {extent.topic_id}; {holds}"
    if position > extent.end:
        return f"{topic} (id {extent.topic_id or 'unknown'}) has lost its end: {holds}"
    return ""


def require_sources(
    name: str, partition: int, vector: Mapping[str, int], topics: Mapping[str, str], bounds: Mapping[str, Any]
) -> None:
    """Before a vector is saved: else offsets of a topic that took the old one's name would be taken for progress.

    Raises InputLost.
    """
    for source, position in vector.items():
        loss = what_is_lost(source, partition, position, topics.get(source, ""), Extent(*bounds[source]))
        if loss:
            raise InputLost(f"{name}: {loss}")


def restart_at(known_id: str, extent: Extent) -> int:
    """Where a state goes on that gave a log up: at the beginning of another, at the end of a shortened one, whose rest
    it has read. Without ids nobody can tell: at the beginning, where what was read before is late or a duplicate.
    """
    return extent.end if known_id and known_id == extent.topic_id else extent.beginning


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
