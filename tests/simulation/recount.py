"""The verdict: an independent recount in plain Python from the source logs and the journal, compared with what came out.

No product code here but the decoding of records that were written. Rules are restated from contracts.md.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LOWEST = -(1 << 62)


@dataclass
class Recount:
    """panes: (partition, model, version, edge) -> Cell; counters: per partition, the terms of the identity; applied: likewise,
    (time, id, model, version, row) of every event that was counted, in order; decided: every partition's decisions.
    """

    panes: dict[tuple[Any, ...], Cell] = field(default_factory=dict)
    counters: list[Counter[str]] = field(default_factory=list)
    applied: list[list[Any]] = field(default_factory=list)
    decided: list[list[dict[str, Any]]] = field(default_factory=list)


@dataclass
class Cell:
    """One pane: what its events say."""

    plan: str
    rows: list[Any] = field(default_factory=list)


def journal(values: Iterable[bytes]) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Decisions by (stage, partition), in order; the same number with another content is an error."""
    found: dict[tuple[str, int], dict[int, Any]] = defaultdict(dict)
    for value in values:
        record = json.loads(value)
        known = found[record["stage"], record["partition"]].setdefault(record["number"], record)
        assert known == record, f"two decisions with one number: {known} {record}"
    for place, numbered in found.items():
        assert sorted(numbered) == list(range(1, len(numbered) + 1)), (place, sorted(numbered))
    return {place: [numbered[n] for n in sorted(numbered)] for place, numbered in found.items()}


def recount_partition(
    partition: int, events: list[Any], decisions: list[dict[str, Any]], kit: Any
) -> tuple[dict, Counter, list]:
    """Event by event: future, late, duplicate, applied; panes by event time; ticks and switches where the journal has them."""
    panes: dict[tuple[Any, ...], Cell] = {}
    counters: Counter[str] = Counter()
    applied: list[Any] = []
    largest = floor = marked = LOWEST
    plans = {model: [(LOWEST, plan)] for model, plan in kit.first_plans().items()}
    open_edges: dict[int, set[int]] = {}
    due = iter(decisions)
    decision = next(due, None)
    for offset in range(len(events) + 1):
        while decision is not None and decision["position"]["predictions"] == offset:
            body = decision["body"]
            if "stream" in body:
                pass
            elif decision["kind"] == "tick":
                floor = max(floor, body["until_ms"])
            else:
                first = max([marked, *(edge + kit.resolution_ms for edge in open_edges)])
                plans[body["model"]].append((first, body["plan"]))
            low = max(largest - kit.lateness_ms, floor) // kit.resolution_ms * kit.resolution_ms
            marked = max(marked, low)
            open_edges = {edge: ids for edge, ids in open_edges.items() if edge >= marked}
            decision = next(due, None)
        if offset == len(events):
            break
        counters["consumed"] += 1
        event = events[offset]
        if event is None or event == "reject":
            counters["tombstones" if event is None else "dead_letters"] += 1
            continue
        time, recorded, ident, model, version, row = kit.plain(event)
        if time > recorded + kit.skew_ms:
            counters["dead_letters"] += 1
            continue
        if time < max(largest - kit.lateness_ms, floor):
            counters["late"] += 1
            continue
        edge = time // kit.resolution_ms * kit.resolution_ms
        known = open_edges.setdefault(edge, set())
        if ident in known:
            counters["duplicates"] += 1
            continue
        known.add(ident)
        counters["applied"] += 1
        plan = [plan for first, plan in plans.get(model, [(LOWEST, "")]) if first <= edge][-1]
        if not plan:  # the model is in no configuration, or not any more
            model, version = "__unknown__", ""
        cell = panes.setdefault((partition, model, version, edge), Cell(plan))
        assert cell.plan == plan
        cell.rows.append(row)
        applied.append((time, ident, model, version, row))
        largest = max(largest, time)
        marked = max(marked, max(largest - kit.lateness_ms, floor) // kit.resolution_ms * kit.resolution_ms)
        open_edges = {edge: ids for edge, ids in open_edges.items() if edge >= marked}
    assert decision is None, f"a decision beyond the end of partition {partition}: {decision}"
    return panes, counters, applied


def recount(world: Any) -> Recount:
    """From the source logs and the journal."""
    values = [output.value for _, output, _ in world.log("journal", 0).records]
    decided = journal(values)
    result = Recount()
    for partition, events in enumerate(world.sources):
        own = decided.get(("collector", partition), [])
        panes, counters, applied = recount_partition(partition, events, own, world.kit)
        result.panes |= panes
        result.applied.append(applied)
        result.decided.append(own)
        result.counters.append(counters)
    world.counts["decisions"] = sum(map(len, decided.values()))
    return result


def distinct_outputs(world: Any, topic: str) -> tuple[dict[bytes, bytes], list[str]]:
    """Records of an output topic by id; two bodies of one id are a finding."""
    found: dict[bytes, bytes] = {}
    wrong = []
    for (name, _), log in sorted(world.logs.items()):
        for _, output, _ in log.records if name == topic else ():
            world.counts[f"{topic} written"] += 1
            ident = world.kit.output_id(output)
            if found.setdefault(ident, output.value) != output.value:
                wrong.append(f"{topic} {ident!r}: two bodies {found[ident]!r} {output.value!r}")
    return found, wrong


def dead_letter_offsets(world: Any, partition: int) -> set[int]:
    """Offsets of the dead letters of one partition's predictions; the same one twice is allowed."""
    letters = [output for _, output, _ in world.log("dead-letters", partition).records]
    return {
        world.kit.dead_letter_offset(output) for output in letters if world.kit.letter_topic(output) == "predictions"
    }


def accounting(result: Recount, world: Any) -> list[str]:
    """consumed = applied + dead letters + duplicates + late + tombstones, and every term as the last marker has it."""
    wrong = []
    terms = ("applied", "dead_letters", "duplicates", "late", "tombstones")
    for partition, counted in enumerate(result.counters):
        if counted["consumed"] != len(world.sources[partition]) or counted["consumed"] != sum(
            counted[t] for t in terms
        ):
            wrong.append(f"recount of partition {partition}: {counted}")
        for monitor in range(world.kit.monitors):
            said = last_counters(world, monitor, partition)
            wrong += [
                f"partition {partition} {term}: marker {said.get(term)}, recounted {counted[term]}"
                for term in ("consumed", *terms)
                if said.get(term) != counted[term]
            ]
        letters = len(dead_letter_offsets(world, partition))
        if letters != counted["dead_letters"]:
            wrong.append(f"partition {partition}: {letters} dead letters, recounted {counted['dead_letters']}")
        for term in terms:
            world.counts[term] += counted[term]
    return wrong


def last_counters(world: Any, monitor: int, partition: int) -> dict[str, int]:
    """Counters of the marker with the highest edge."""
    log = world.log("panes", monitor)
    bodies = [world.kit.body(output.value) for _, output, _ in log.records]
    markers = [body for body in bodies if hasattr(body, "counters") and body.partition == partition]
    markers = [marker for marker in markers if marker.stream == "inputs"]
    return dict(max(markers, key=lambda marker: marker.edge_ms).counters) if markers else {}


def kept_panes(world: Any, monitor: int, wrong: list[str]) -> dict[tuple[Any, ...], list[Any]]:
    """Pane records of one panes partition that count, by (partition, model, version, edge), by the rules of
    "From collector to monitor"; a pane without a marker, and one that a marker has passed twice, is a finding.
    """
    kit = world.kit
    marked = [LOWEST] * kit.partitions
    epochs = [0] * kit.partitions
    fresh: list[dict[Any, Any]] = [{} for _ in range(kit.partitions)]
    kept: dict[tuple[Any, ...], list[Any]] = {}
    log = world.log("panes", monitor)
    for place in range(log.end):
        record = world.pane_record(monitor, place)
        body, p = record.body, record.body.partition
        if record.epoch < epochs[p] or hasattr(body, "horizon_ms") or getattr(body, "stream", "inputs") != "inputs":
            continue
        if hasattr(body, "segment"):
            if body.edge_ms >= marked[p]:
                key = (body.edge_ms, body.model, body.version, body.segment, body.plan, body.first_target)
                fresh[p].setdefault(key, body)
        elif not hasattr(body, "counters"):
            if record.epoch > epochs[p]:
                epochs[p], fresh[p] = record.epoch, {}
        elif body.edge_ms > marked[p]:
            passed = {key: fresh[p].pop(key) for key in [key for key in fresh[p] if key[0] < body.edge_ms]}
            for key, pane in passed.items():
                kept.setdefault((p, key[1], key[2], key[0]), []).append(pane)
            marked[p] = body.edge_ms
    for p in range(kit.partitions):
        wrong += [f"pane {key} of partition {p} without a marker" for key in fresh[p]]
    return kept


def compare_panes(result: Recount, world: Any) -> list[str]:
    """Every pane that counts, whole, against the recount of its events."""
    wrong: list[str] = []
    got: dict[tuple[Any, ...], list[Any]] = {}
    for monitor in range(world.kit.monitors):
        for key, panes in kept_panes(world, monitor, wrong).items():
            if key in got:
                wrong.append(f"pane {key} in two panes partitions")
            got[key] = panes
    world.counts["panes"] = len(result.panes)
    for key in sorted(set(got) | set(result.panes)):
        said = {pane.segment: world.kit.said(pane) for pane in got.get(key, [])}
        cell = result.panes.get(key)
        expected = world.kit.expected(key, cell) if cell else {}
        if said != expected or len(said) != len(got.get(key, [])):
            wrong.append(f"pane {key}: {said}, recounted {expected}")
    return wrong


def verdict(world: Any) -> list[str]:
    """Everything that is wrong, in words; empty = right."""
    result = recount(world)
    return accounting(result, world) + compare_panes(result, world) + world.kit.compare_windows(world, result)
