"""The state log as its owner writes it: blobs, manifests, tombstones, and what of it must not fall too far behind."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import crc32c

from stream.claims import Claimed, encoded
from stream.protocol import Append, ReadAt, StateLost, Steps
from stream.snapshot_format import (
    HELD,
    BlobRef,
    Manifest,
    blob_prefix,
    chunks,
    commit_metadata,
    join_chunks,
    record_bytes,
)
from stream.stage import Decision, Output
from stream.state_log import lowest_offset

FAR_FACTOR = 2  # a blob or claim further back than this many live sizes is written again
FAR_FLOOR_BYTES = 1 << 20  # small states need not move: reading a MiB takes milliseconds


class StateWriter:
    """`saved`: the newest manifest, at first the claim. Keys given up by a manifest get tombstones after the next one,
    so that the newest but one stays whole.
    """

    def __init__(self, claimed: Claimed) -> None:
        self.saved = claimed.start
        self._topic = f"state.{claimed.start.stage}"
        self._claim = claimed.start
        self._claim_offset = claimed.offset
        self._manifest_offset = claimed.offset
        self._log_bytes = claimed.start.log_bytes + claimed.log.bytes_since(claimed.offset - 1)
        self._claim_log_bytes = self._log_bytes
        self._retired = claimed.log.garbage(claimed.start, (claimed.start.key,))
        self._given_up: tuple[bytes, ...] = ()

    @property
    def metadata(self) -> str:
        """Of a commit: where a restore may begin to read."""
        return commit_metadata(lowest_offset(self._claim_offset, self._manifest_offset, self.saved.refs))

    def read_far(self) -> Steps[dict[str, bytes]]:
        """Step 1: blobs so far back that they would keep the start of the log from moving."""
        saved = self.saved
        again: dict[str, bytes] = {}
        for name, ref in saved.refs.items():
            if name != HELD and self._is_far(ref.log_bytes):
                pieces = yield ReadAt("snapshot.1-read-far", self._topic, saved.partition, ref.offsets)
                blob = join_chunks(ref, pieces)
                if blob is not None:  # else it stays where it is: a restore will judge it
                    again[name] = blob
        return again

    def _is_far(self, log_bytes: int) -> bool:
        return self._log_bytes - log_bytes > max(FAR_FACTOR * self.saved.live_bytes, FAR_FLOOR_BYTES)

    def write(
        self,
        blobs: Mapping[str, bytes],
        gone: Collection[str],
        vector: dict[str, int],
        decided: int,
        decisions: tuple[Decision, ...],
    ) -> Steps[Manifest]:
        """Steps 4 and 5: the blobs, then the manifest that names them and all that stay. Raises ManifestTooLarge."""
        sequence = self.saved.sequence + 1
        if self._is_far(self._claim_log_bytes):
            yield from self._claim_again()
        fresh = yield from self._write_blobs(blobs, sequence)
        old = self.saved.refs
        kept = {name: ref for name, ref in old.items() if name not in gone and name not in fresh}
        given_up = [key for name, ref in old.items() if name not in kept for key in ref.keys]
        if self.saved.sequence:  # the claim itself stays: it says who owns the epoch
            given_up.append(self.saved.key)
        manifest = replace(
            self.saved,
            sequence=sequence,
            vector=vector,
            decided=decided,
            decisions=decisions,
            refs=kept | fresh,
            log_bytes=self._log_bytes,
            applied=decided,
        )
        offsets = yield from self._append("snapshot.5-manifest", ((manifest.key, encoded(manifest)),))
        self._manifest_offset = offsets[0]
        self.saved = manifest
        self._given_up = tuple(given_up)
        return manifest

    def _claim_again(self) -> Steps[None]:
        """The claim itself must not hold the start of the log either. A second copy changes nothing: a restore that begins
        behind the first one finds a manifest with it, and whose manifest counts has won (state_log, rule 1).
        """
        claim = self._claim
        (self._claim_offset,) = yield from self._append("snapshot.4-claim", ((claim.key, encoded(claim)),))
        self._claim_log_bytes = self._log_bytes

    def _write_blobs(self, blobs: Mapping[str, bytes], sequence: int) -> Steps[dict[str, BlobRef]]:
        saved = self.saved
        refs: dict[str, BlobRef] = {}
        records: list[tuple[bytes, bytes | None]] = []
        for name, blob in sorted(blobs.items()):
            pieces = chunks(blob)
            prefix = blob_prefix(saved.partition, saved.epoch, saved.writer, sequence, name)
            ref = BlobRef(prefix, len(blob), crc32c.crc32c(blob), tuple(range(len(pieces))), self._log_bytes)
            refs[name] = ref
            records += zip(ref.keys, pieces, strict=True)
        if not records:
            return refs
        offsets = iter((yield from self._append("snapshot.4-blobs", records)))
        return {name: replace(ref, offsets=tuple(next(offsets) for _ in ref.offsets)) for name, ref in refs.items()}

    def tombstones(self) -> Steps[None]:
        """Step 9, after the commit."""
        retired, self._retired = self._retired, self._given_up
        if retired:
            yield from self._append("snapshot.9-tombstones", tuple((key, None) for key in retired))

    def _append(self, step: str, records: Sequence[tuple[bytes, bytes | None]]) -> Steps[tuple[int, ...]]:
        saved = self.saved
        outputs = tuple(Output(self._topic, key, value, saved.partition) for key, value in records)
        offsets: tuple[int, ...] = yield Append(step, outputs)
        if min(offsets) <= self._manifest_offset:
            raise StateLost(
                f"state of {saved.stage} {saved.partition}: written at offset {min(offsets)}, the manifest before stood at"
                f" {self._manifest_offset}: its topic was made anew"
            )
        self._log_bytes += sum(record_bytes(key, value) for key, value in records)
        return offsets
