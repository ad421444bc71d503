"""Which records of the panes topic count, by the monitors' rules, and how they compare with the recount. Independent of the product.

Rules (contracts.md, From collector to monitor): an announcement with a higher epoch voids lower ones and what their owner sent
without a marker; per source partition the first record of a key counts, above the last marked edge only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from load_tests.chaos import wire
from load_tests.chaos.recount import LOWEST, Cell, Counted, Finding, PaneKey
from load_tests.chaos.wire import text_hash

CLOSE = 1e-9  # of derived floats
OF_THE_WRITER = (
    "dlq.config_hash",
    "dlq.app_version",
)  # its own at its start: it may have changed when a letter is sent again


@dataclass
class Kept:
    """What counts in one panes partition. `unmarked`: panes that no marker has passed; `repeats`: records dropped."""

    panes: dict[PaneKey, dict[tuple[str, str], list[wire.Pane]]] = field(default_factory=lambda: defaultdict(dict))
    markers: dict[int, list[wire.Marker]] = field(default_factory=lambda: defaultdict(list))
    unmarked: list[wire.Pane] = field(default_factory=list)
    repeats: int = 0
    plans: dict[str, wire.Pane] = field(default_factory=dict)  # a pane of each plan
    first_plans: dict[tuple[int, str], str] = field(default_factory=dict)


def keep(records: Sequence[Any], partitions: int, findings: list[Finding]) -> Kept:
    """`records`: (partition, offset, timestamp_ms, key, value, headers) of one panes partition in offset order.

    Repeats that differ are findings, whoever wrote them: outputs do not depend on crashes or owners.
    """
    kept = Kept()
    epochs, marked = [0] * partitions, [LOWEST] * partitions
    fresh: list[dict[Any, wire.Pane]] = [{} for _ in range(partitions)]
    written: dict[Any, bytes] = {}
    for record in records:
        value = record[4] or b""
        try:
            body = wire.record(value)
        except wire.WireError as error:
            findings.append(("spurious", f"panes-{record[0]} at {record[1]}: {error}"))
            continue
        at, p = wire.epoch(record[5]), body.partition
        if isinstance(body, wire.Pane):
            kept.plans.setdefault(body.plan, body)
            if written.setdefault((p, *body.block), value) != value:
                findings.append(("wrong", f"pane {p, *body.block} was written twice, and not the same"))
        if at < epochs[p]:
            kept.repeats += 1
        elif isinstance(body, wire.Announcement):
            if at > epochs[p]:
                epochs[p], fresh[p] = at, {}
        elif isinstance(body, wire.Pane):
            if body.edge_ms < marked[p] or body.block in fresh[p]:
                kept.repeats += 1
            else:
                fresh[p][body.block] = body
        elif body.edge_ms <= marked[p]:
            kept.repeats += 1
        else:
            marked[p] = body.edge_ms
            kept.markers[p].append(body)
            for block in [block for block in fresh[p] if block[0] < body.edge_ms]:
                _count(kept, fresh[p].pop(block))
    kept.unmarked = [pane for own in fresh for pane in own.values()]
    return kept


def _count(kept: Kept, pane: wire.Pane) -> None:
    key = (pane.partition, pane.edge_ms, pane.model, pane.version, pane.segment)
    kept.panes[key].setdefault((pane.plan, pane.reference), []).append(pane)
    kept.first_plans.setdefault((pane.partition, pane.model), pane.plan)


def compare_panes(all_kept: Sequence[Kept], counted: Iterable[Counted], monitors: int) -> list[Finding]:
    """Every pane that counts, whole, against the recount of its events."""
    findings: list[Finding] = []
    said: dict[PaneKey, list[tuple[int, list[wire.Pane]]]] = defaultdict(list)
    for monitor, kept in enumerate(all_kept):
        findings += [("spurious", f"pane {pane.partition, *pane.block} without a marker") for pane in kept.unmarked]
        for key, versions in kept.panes.items():
            said[key] += [(monitor, blocks) for blocks in versions.values()]
    expected: dict[PaneKey, Cell] = {}
    for one in counted:
        expected |= one.panes
    for key in sorted(set(said) | set(expected)):
        cell, found = expected.get(key), said.get(key, [])
        if cell is None:
            findings.append(("spurious", f"pane {key}: {found[0][1][0].events} events that are not in the log"))
        elif not found:
            findings.append(("lost", f"pane {key}: {cell.events} events"))
        else:
            if len(found) > 1:
                findings.append(("double", f"pane {key} counts {len(found)} times"))
            own = [(monitor, list(differences(blocks, cell))) for monitor, blocks in found]
            monitor, differing = min(own, key=lambda each: (len(each[1]), each[0] != text_hash(key[2]) % monitors))
            if monitor != text_hash(key[2]) % monitors:
                findings.append(("wrong", f"pane {key} in panes-{monitor}"))
            findings += [(kind, f"pane {key}: {what}") for kind, what in differing]
    return findings


def differences(blocks: list[wire.Pane], cell: Cell) -> Iterable[Finding]:
    """What one pane, all its blocks, says otherwise than its events."""
    blocks = sorted(blocks, key=lambda block: block.first_target)
    names = [name for block in blocks for name in block.names]
    expected = [target.name for target in cell.plan.targets]
    if (blocks[0].plan, blocks[0].reference) != (cell.plan.hash, cell.plan.reference):
        yield "wrong", f"plan {blocks[0].plan} of {blocks[0].reference}, in force was {cell.plan.hash}"
        return
    if names != expected or not blocks[-1].last_block:
        yield "lost" if len(names) < len(expected) else "wrong", f"targets {names}, expected {expected}"
        return
    if blocks[0].events != cell.events:
        kind = "double" if blocks[0].events > cell.events else "lost"
        yield kind, f"{blocks[0].events} events, recounted {cell.events}"
        return
    for block in blocks:
        for place, name in enumerate(block.names):
            for what, one, other in _of_target(block, place, cell, block.first_target + place):
                yield "wrong", f"{name}: {what} {one}, recounted {other}"
    said, seen = schema_of(blocks), cell.schema
    if said != ((0, {}, {}) if seen is None else (seen.looked, seen.names, seen.odd)):
        yield "wrong", f"the schema's sample {said}, recounted {seen}"
    if cell.ids is not None:
        sample = blocks[0].sample or []
        if sample != sorted(cell.ids)[: len(sample)] or len(sample) < min(cell.events, 5_000):
            yield "wrong", f"the sample's {len(sample)} rows are not the ones with the smallest hashes"


def schema_of(blocks: Sequence[wire.Pane]) -> tuple[int, dict[str, list[int]], dict[int, list[int]]]:
    """Events looked at, names that no plan has, places of features with values of another type. This traffic has no crowd of names."""
    looked, names, odd = 0, {}, {}
    for block in blocks:
        if block.schema is not None:
            looked += block.schema[0]
            names |= block.schema[2]
            odd |= {block.first_target + place: counts for place, *counts in block.schema[3]}
    return looked, names, odd


def _of_target(block: wire.Pane, place: int, cell: Cell, at: int) -> Iterable[tuple[str, Any, Any]]:
    low, high = cell.ranges[at]
    none = low > high
    pairs = [
        ("bins", block.bins[place], cell.bins[at]),
        ("missing, invalid, out of range", block.tally[place], cell.tally[at]),
        (
            "extremes",
            [None if math.isnan(x) else x for x in block.extremes[place]],
            [None, None] if none else [low, high],
        ),
    ]
    if cell.registers is not None:
        pairs.append(("distinct registers", block.registers.get(place, {}), cell.registers.get(at, {})))
    yield from (pair for pair in pairs if pair[1] != pair[2])
    for what, one, other in zip(("sum", "squares"), block.sums[place], cell.sums[at], strict=True):
        if not close(one, other):
            yield what, one, other


def close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= CLOSE * max(1.0, abs(one), abs(other))


def compare_markers(all_kept: Sequence[Kept], counted: Iterable[Counted]) -> list[Finding]:
    """Every marker, with its counters, in every panes partition: the accounting as of each of them."""
    findings: list[Finding] = []
    for one in counted:
        expected = {marker.edge_ms: marker for marker in one.markers}
        for monitor, kept in enumerate(all_kept):
            said = {marker.edge_ms: marker for marker in kept.markers.get(one.partition, [])}
            where = f"partition {one.partition}, panes-{monitor}"
            findings += [("lost", f"marker at {edge} of {where}") for edge in sorted(set(expected) - set(said))]
            findings += [("spurious", f"marker at {edge} of {where}") for edge in sorted(set(said) - set(expected))]
            for edge in sorted(set(said) & set(expected)):
                differing = list(_of_marker(said[edge], expected[edge], f"marker at {edge} of {where}"))
                findings += differing
                if differing:
                    break  # counters are running sums: those behind it differ for the same reason
    return findings


def _of_marker(said: wire.Marker, expected: wire.Marker, where: str) -> Iterable[Finding]:
    for name in ("stream", "next_offset", "counters", "plans", "largest_ms", "idle"):
        one, other = getattr(said, name), getattr(expected, name)
        if name == "counters":  # what is zero may be left out
            one, other = ({term: n for term, n in each.items() if n} for each in (one, other))
        if one != other:
            kind = "wrong"
            if name == "counters" and one.get("applied", 0) != other.get("applied", 0):
                kind = "double" if one.get("applied", 0) > other.get("applied", 0) else "lost"
            yield kind, f"{where}: {name} {one}, recounted {other}"


def compare_letters(records: Sequence[Any], sources: Mapping[tuple[int, int], Any], topic: str,
                    counted: Iterable[Counted]) -> list[Finding]:  # fmt: skip
    """Dead letters by (partition, offset, row): every one, nothing else, repeats equal, value and key as they came."""
    findings: list[Finding] = []
    expected: dict[tuple[int, int, int], str] = {}
    for one in counted:
        expected |= one.letters
    written: dict[tuple[int, int, int], Any] = {}
    for record in records:
        headers = {name: bytes(value).decode("utf-8", "replace") for name, value in record[5]}
        try:
            key = (int(headers["dlq.partition"]), int(headers["dlq.offset"]), int(headers["dlq.row"]))
        except (KeyError, ValueError):
            findings.append(("spurious", f"dead letter at {record[0]}/{record[1]} that names no event"))
            continue
        content = (record[3], record[4], {name: text for name, text in headers.items() if name not in OF_THE_WRITER})
        first = key not in written
        if written.setdefault(key, content) != content:
            findings.append(("wrong", f"dead letter {key} was written twice, and not the same"))
        if not first:
            continue
        if key not in expected:
            findings.append(("spurious", f"dead letter {key}: {headers.get('dlq.reason')}, the event is not bad"))
            continue
        if headers.get("dlq.reason") != expected[key] or headers.get("dlq.topic") != topic or record[0] != key[0]:
            what = f"{headers.get('dlq.reason')} of {headers.get('dlq.topic')} in partition {record[0]}"
            findings.append(("wrong", f"dead letter {key}: {what}, expected {expected[key]}"))
        source = sources[key[:2]]
        if not _same_payload(record, source, headers):
            findings.append(("wrong", f"dead letter {key}: key or value are not the event's"))
    findings += [("lost", f"dead letter {key}: {expected[key]}") for key in sorted(set(expected) - set(written))]
    return findings


def _same_payload(record: Any, source: Any, headers: Mapping[str, str]) -> bool:
    """Equal; or cut, and then named by length and checksum in the headers. What was redacted is another text."""
    for name, one, other in (("key", record[3], source[3]), ("value", record[4], source[4])):
        whole = other or b""
        if f"dlq.{name}_sha256" in headers:
            named = (headers[f"dlq.{name}_sha256"], headers.get(f"dlq.{name}_length"))
            redacted = name == "value" and headers.get("dlq.payload") == "redacted"
            if named != (sha256(whole).hexdigest(), str(len(whole))):
                return False
            if not redacted and not whole.startswith(one or b""):
                return False
        elif one != other:
            return False
    return True
