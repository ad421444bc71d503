"""A state log as read: which state the next owner of the partition starts from. Pure; numbered as in protocol.STEPS.

Rules
1. Of the claims of the highest epoch the first in the log wins; only its writer's manifests count. A claim that was sent
   twice may, once compacted, stand where the second copy was, behind a loser's: so a writer that has written a manifest
   has won, wherever its claim stands. That is why every owner's first snapshot writes one, changed or not.
2. Of these the highest sequence number counts, not the last in the log: a retried record may arrive late.
3. A manifest counts when it and every blob it names are whole. A tombstone never hides a blob that a manifest names.
4. A damaged one is passed over and counted, if the older one holds all its decisions; else StateCorrupt: what left under
   them could not be repeated. A damaged claim gives way to its base, the manifest that it was copied from, likewise. An
   unknown version is refused (NewerState), never passed over, and so is what another cluster's owner wrote (ForeignState).
5. A key is checked by itself. A damaged one is counted; what it held counts if its value says what it is.
6. Records without the claim that they need: read from the beginning (None); still without: StateLost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from stream.container import ContainerError, UnknownVersion
from stream.protocol import ForeignState, LogIncomplete, LogRecord, LogSlice, NewerState, StateCorrupt, StateLost
from stream.snapshot_format import (
    BlobRef,
    Key,
    Manifest,
    decode_manifest,
    join_chunks,
    key_is_whole,
    parse_base,
    parse_key,
    record_bytes,
)

LIVE_SNAPSHOTS = 3  # the newest, the one that the last commit names, and the one by which that kept its blobs in place


@dataclass(frozen=True, slots=True)
class Choice:
    """State to start from: `epoch` 0 and no manifest = a partition without any record. `corrupt`: manifests passed over."""

    epoch: int
    manifest: Manifest | None
    claim_offset: int
    manifest_offset: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class _Written:
    offset: int
    key: Key
    value: bytes


class StateLog:
    """Index of the records read so far, by `add`."""

    def __init__(self, stage: str, partition: int, home: str = "") -> None:
        self._stage = stage
        self._partition = partition
        self._home = home
        self._claims: dict[int, dict[str, _Written]] = {}
        self._manifests: dict[tuple[int, str], dict[int, _Written]] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._live: dict[bytes, int] = {}  # key -> offset of its value, without those whose last record is a tombstone
        self._sizes: list[tuple[int, int]] = []
        self._saves: dict[int, tuple[int, str, int]] = {}  # offset of a blob or manifest -> its snapshot
        self._highest = 0  # epoch of any value
        self.claims_bytes = 0
        self.records = 0
        self.foreign = 0  # records of another partition, passed over
        self.damaged = 0  # keys that are none
        self.position = 0
        self.whole = False

    def add(self, part: LogSlice) -> None:
        """Take in one slice. Raises LogIncomplete if the reader stopped early or, for the first, began elsewhere."""
        if part.position < part.end:
            raise LogIncomplete(f"state log of {self._name}: read to {part.position} of {part.end}")
        if self.records == 0 and not self.whole:
            self.whole = part.start <= part.beginning
        elif part.start > self.position:
            raise LogIncomplete(f"state log of {self._name}: read from {part.start}, expected {self.position}")
        for record in part.records:
            self._take(record)
        self.position = max(self.position, part.position)

    def _take(self, record: LogRecord) -> None:
        self.records += 1
        self._sizes.append((record.offset, record_bytes(record.key, record.value)))
        key = parse_key(record.key)
        if key is None and key_is_whole(record.key):
            raise NewerState(f"state log of {self._name}: offset {record.offset} has the unknown key {record.key!r}")
        if key is None:
            self.damaged += 1
            key = _key_in(record.value)
            if key is None:
                if record.value is not None:
                    self._live[record.key] = record.offset  # to be removed with what is given up
                return
        if key.partition != self._partition:
            self.foreign += 1
            return
        if record.value is None:
            self._live.pop(record.key, None)
            return
        self._live[record.key] = record.offset
        self._highest = max(self._highest, key.epoch)
        written = _Written(record.offset, key, record.value)
        if key.kind != "c":
            self._saves[record.offset] = (key.epoch, key.writer, key.sequence)
        if key.kind == "b":
            self._blobs[record.key] = record.value
            return
        if key.kind == "c":
            self.claims_bytes += record_bytes(record.key, record.value)
            self._claims.setdefault(key.epoch, {}).setdefault(key.writer, written)
        self._manifests.setdefault((key.epoch, key.writer), {}).setdefault(key.sequence, written)

    @property
    def _name(self) -> str:
        return f"{self._stage} {self._partition}"

    def winner(self, epoch: int) -> str:
        """Writer of the claim that won `epoch`."""
        claims = list(self._claims[epoch].values())
        proven = [claim for claim in claims if max(self._manifests[epoch, claim.key.writer]) > 0]
        return (proven or claims)[0].key.writer

    def highest_epoch(self) -> int:
        """The highest epoch that was claimed, 0 = none."""
        return max(self._claims, default=0)

    def choose(self) -> Choice | None:
        """Steps 1 and 2: the state to start from; None = read from the beginning first.

        Raises StateLost, StateCorrupt, NewerState.
        """
        if self.records == self.foreign:
            return Choice(0, None, 0, 0, 0) if self.whole else None
        epoch = self.highest_epoch()
        if self._highest > epoch or epoch == 0:
            self._require_whole(StateLost(f"state log of {self._name}: records without the claim they belong to"))
            return None
        claim = self._claims[epoch][self.winner(epoch)]
        corrupt, forgotten = 0, 0
        for item in self._candidates(epoch, claim.key.writer):
            manifest = self._read(item)
            if manifest is None and not self.whole:
                return None
            if manifest is None:
                corrupt, forgotten = corrupt + 1, max(forgotten, item.key.decided)
            elif manifest.decided < forgotten:
                break
            else:
                return Choice(epoch, manifest, claim.offset, item.offset, corrupt)
        self._require_whole(
            StateCorrupt(
                f"state log of {self._name}: {corrupt} manifests of epoch {epoch} are damaged, none can be used"
            )
        )
        return None

    def _candidates(self, epoch: int, writer: str) -> Iterator[_Written]:
        """The winner's manifests, the newest first, its claim last; then those that its base came after, and so on."""
        at = (epoch, writer)
        sequence = -1
        while at in self._manifests:
            written = self._manifests[at]
            yield from (written[n] for n in sorted(written, reverse=True) if sequence < 0 or n <= sequence)
            base = parse_base(written[0].key.base) if 0 in written else None
            if base is None or base[0] >= epoch:
                return
            epoch, writer, sequence = base
            at = (epoch, writer)

    def _require_whole(self, error: Exception) -> None:
        if self.whole:
            raise error

    def _read(self, item: _Written) -> Manifest | None:
        """The manifest, None if it or one of its blobs is damaged."""
        try:
            manifest = decode_manifest(item.value)
        except UnknownVersion as error:
            raise NewerState(f"state of {self._name}: {error}") from error
        except ContainerError:
            return None
        if manifest.stage != self._stage or parse_key(manifest.key) != item.key:
            return None
        if manifest.home != self._home:
            raise ForeignState(f"state of {self._name} was made for cluster {manifest.home!r}, this is {self._home!r}")
        return manifest if all(self.blob(ref) is not None for ref in manifest.refs.values()) else None

    def blob(self, ref: BlobRef) -> bytes | None:
        """A blob's bytes, None if a piece is missing or wrong."""
        return join_chunks(ref, [self._blobs.get(key) for key in ref.keys])

    def garbage(self, manifest: Manifest | None, keep: Iterable[bytes]) -> tuple[bytes, ...]:
        """Keys that hold a value and that no state from `manifest` on needs, in log order."""
        kept = set(keep)
        if manifest is not None:
            kept |= {key for ref in manifest.refs.values() for key in ref.keys}
        return tuple(key for key in self._live if key not in kept)

    @property
    def read_bytes(self) -> int:
        """Bytes of all records read."""
        return sum(size for _, size in self._sizes)

    @property
    def interval_bytes(self) -> int:
        """Bytes of the longest stretch between two claims or manifests, or behind the last, without what is unfinished: what
        one snapshot wrote at most.
        """
        ends = {item.offset for written in self._manifests.values() for item in written.values()}
        unfinished = self._unfinished()
        longest = stretch = 0
        for offset, size in self._sizes:
            stretch += size if offset not in unfinished else 0
            longest = max(longest, stretch)
            if offset in ends:
                stretch = 0
        return longest

    def _unfinished(self) -> dict[int, tuple[int, str, int]]:
        """Offset -> snapshot, of blobs and manifests that no later owner's state builds on: their snapshots are newer than
        the one that a claim read here names as what its writer's predecessor left. Snapshots of owners whom no claim names
        count as finished.
        """
        left: dict[tuple[int, str], int] = {}
        for written in self._manifests.values():
            base = parse_base(written[0].key.base) if 0 in written else None
            if base is not None:
                left[base[:2]] = max(base[2], left.get(base[:2], 0))
        return {at: save for at, save in self._saves.items() if save[2] > left.get(save[:2], save[2])}

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of the snapshots whose owners died, or lost the partition, within them."""
        unfinished = self._unfinished()
        return sum(size for offset, size in self._sizes if offset in unfinished)

    @property
    def unfinished(self) -> int:
        """How many such snapshots there are: no more than owners before this one, as nobody goes on after one."""
        return len(set(self._unfinished().values()))

    @property
    def owners_before(self) -> int:
        """Claims read, whatever became of them, without the one of this epoch."""
        return max(0, sum(0 in written for written in self._manifests.values()) - 1)

    def largest_live_bytes(self, manifest: Manifest) -> int:
        """Of the last LIVE_SNAPSHOTS states up to `manifest`: a blob stays in place by the size of the state before, and the
        place where a restore begins may be that of the state before the newest (its commit is missing).
        """
        largest, names = manifest.live_bytes, set[str]()
        for item in self._candidates(manifest.epoch, manifest.writer):
            key = item.key
            names.add(key.base or f"{key.epoch}:{key.writer}:{key.sequence}")
            if len(names) > LIVE_SNAPSHOTS:
                break
            with suppress(ContainerError):
                largest = max(largest, decode_manifest(item.value).live_bytes)
        return largest

    def bytes_since(self, offset: int) -> int:
        """Bytes of the records after `offset`."""
        return sum(size for at, size in self._sizes if at > offset)


def _key_in(value: bytes | None) -> Key | None:
    """Key of a record whose own is damaged: a manifest repeats it."""
    try:
        return parse_key(decode_manifest(value or b"").key)
    except ContainerError:
        return None


def lowest_offset(claim: int, manifest: int, refs: Mapping[str, BlobRef]) -> int:
    """The lowest offset that a restore needs: of the claim, the newest manifest, the live blobs."""
    return min([claim, manifest, *(offset for ref in refs.values() for offset in ref.offsets)])
