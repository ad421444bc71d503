"""Laws of merging: what comes out depends on the set of records that count, never on how they arrived."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import container
from stream.merging import Merger, PaneRecord, UnknownSourceError
from stream.panes import EDGE_END, INPUTS, Announcement, Marker, Pane, decode_record, encode_pane
from stream.registers import Registers

SOURCES = 3
RESOLUTION = 10


def pane(partition, edge, events, *, version="1", plan="p", segment="all", offset=0.1):
    return Pane(
        partition=partition, edge_ms=edge, model="m", version=version, segment=segment, plan=plan, reference="r",
        events=events, names=("x", "y"), first_target=0, last_block=True,
        bin_start=np.array([0, 2, 5]), bins=np.array([events, 0, 0, 1, 2]), sums=np.full((2, 2), events * offset),
        extremes=np.array([[float(events), events + 1.0], [np.nan, np.nan]]), missing=np.array([1, 0]),
        invalid=np.array([0, 2]), out_of_range=np.array([0, 1]), distinct=Registers.none(),
    )  # fmt: skip


def marker(partition, edge, plan="p"):
    return Marker(partition, INPUTS, edge, {"predictions": 1}, {"consumed": edge}, {"m": plan}, edge)


def owner_log(seed, partition):
    """What the owners of one partition send: panes per edge, markers, deaths with partial output, zombies. Also the truth."""
    r = random.Random(seed * 31 + partition)
    truth = {edge: r.randrange(1, 50) for edge in range(0, 100, RESOLUTION) if r.random() < 0.8}
    log, marked, epoch, zombie = [], 0, 1, []
    log.append((epoch, Announcement(partition)))
    while marked <= 90:
        stop = min(100, marked + RESOLUTION * r.choice((1, 1, 2)))
        batch = [pane(partition, edge, truth[edge]) for edge in range(marked, stop, RESOLUTION) if edge in truth]
        if (
            r.random() < 0.4
        ):  # dies: some panes are out, and more of them arrive late, with other content, as a zombie's
            log += [(epoch, each) for each in batch if r.random() < 0.5]
            zombie = [(epoch, pane(partition, each.edge_ms, each.events + 7)) for each in batch]
            zombie += [(epoch, marker(partition, stop + 20))]
            epoch += 1
            log.append((epoch, Announcement(partition)))
        if zombie and r.random() < 0.7:
            log.append(zombie.pop(0))
        sends = batch + [each for each in batch if r.random() < 0.3]  # the network repeats some
        r.shuffle(sends)
        log += [(epoch, each) for each in sends]
        log.append((epoch, marker(partition, stop)))
        if r.random() < 0.2:
            log += [(epoch, each) for each in batch]  # a repeated send after its marker
        marked = stop
    log += [*zombie, (epoch, marker(partition, EDGE_END))]
    return log, truth


def interleaved(seed):
    r = random.Random(seed)
    logs, truths = zip(*(owner_log(seed, partition) for partition in range(SOURCES)), strict=True)
    rest = [list(log) for log in logs]
    records = []
    while any(rest):
        source = r.choice([log for log in rest if log])
        epoch, body = source.pop(0)
        records.append(PaneRecord(len(records), 1000, epoch, body))
    return records, truths


def run(records, merger=None):
    merger = merger or Merger(SOURCES)
    edges = {}
    for record in records:
        if merger.add(record):
            edges |= dict(merger.complete())
            merger.release()
    return edges


def shown(edges):
    return {
        edge: {(model, group): (tally.events, tally.counts.tolist(), tally.sums.tobytes(), tally.extremes.tobytes())
               for model, groups in models.items() for group, tally in groups.items()}
        for edge, models in edges.items()
    }  # fmt: skip


def wrong_edges(seed, records, truths):
    got = {edge: models["m"] for edge, models in run(records).items()}
    wrong = 0
    for edge in range(0, 100, RESOLUTION):
        expected = sum(truth.get(edge, 0) for truth in truths)
        wrong += expected != sum(tally.events for tally in got.get(edge, {}).values())
    return wrong


@pytest.mark.parametrize("seed", range(60))
def test_every_edge_has_exactly_the_events_of_the_lasting_owners(seed):
    records, truths = interleaved(seed)
    assert wrong_edges(seed, records, truths) == 0


def test_leaving_out_the_epoch_or_the_deduplication_is_noticed():
    def without_epoch(record):
        return PaneRecord(record.offset, record.timestamp_ms, 1, record.body)

    wrong = sum(
        wrong_edges(seed, [without_epoch(record) for record in interleaved(seed)[0]], interleaved(seed)[1]) > 0
        for seed in range(20)
    )
    assert wrong > 5

    class Forgetful(Merger):  # every record counts, in a block of its own
        def add(self, record):
            if isinstance(record.body, Pane):
                key = (*[record.body.edge_ms, "m", "1", "all", "p", "r"], record.offset)
                self.sources[record.body.partition].panes.setdefault(record.body.edge_ms, {})[key] = tuple(
                    encode_pane(record.body)
                )
                return False
            return super().add(record)

    def events(seed, kind=Forgetful):
        records, truths = interleaved(seed)
        merger = kind(SOURCES)
        for record in records:
            merger.add(record)
        total = sum(
            decode_record(wire).events
            for source in merger.sources
            for panes in source.panes.values()
            for wires in panes.values()
            for wire in wires
        )
        return total, sum(sum(truth.values()) for truth in truths)

    assert sum(total != truth for total, truth in map(events, range(20))) > 15
    assert all(total == truth for total, truth in (events(seed, Merger) for seed in range(20)))


@given(st.integers(0, 10_000), st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_a_snapshot_at_any_cut_changes_nothing(seed, cut):
    records, _ = interleaved(seed)
    cut = min(cut, len(records))
    blobs = {}

    def save(merger):
        for name, value in merger.changed_blobs().items():
            blobs.pop(name, None)
            if value is not None:
                blobs[name] = value
        return container.decode(container.encode("t", 1, merger.header(), {})).header

    first = Merger(SOURCES)
    before = run(records[: cut // 2], first)
    save(first)
    before |= run(records[cut // 2 : cut], first)
    header = save(first)
    second = Merger(SOURCES)
    second.load(header, blobs)
    after = run(records[cut:], second)
    assert shown(before | after) == shown(run(records))
    assert not set(before) & set(after)
    assert second.header() == run_header(records)


def run_header(records):
    merger = Merger(SOURCES)
    run(records, merger)
    return merger.header()


def test_edges_come_out_once_all_partitions_have_passed_them_in_ascending_order():
    merger = Merger(2)
    records = [pane(0, 0, 3), pane(0, 10, 4), marker(0, 20), pane(1, 10, 5), marker(1, 10), marker(1, 20)]
    seen = []
    for offset, body in enumerate(records):
        if merger.add(PaneRecord(offset, 0, 1, body)):
            seen += [(edge, sum(t.events for t in models["m"].values())) for edge, models in merger.complete()]
            assert merger.plans_at(0, "m") == {"p"}
            merger.release()
    assert seen == [(0, 3), (10, 9)]
    assert merger.low_ms == 20


def test_versions_segments_and_plans_are_never_added_to_each_other():
    merger = Merger(1)
    bodies = [pane(0, 0, 1), pane(0, 0, 2, version="2"), pane(0, 0, 3, segment="c=DE"), pane(0, 0, 4, plan="q")]
    for offset, body in enumerate([*bodies, marker(0, 10)]):
        merger.add(PaneRecord(offset, 0, 1, body))
    ((_, models),) = merger.complete()
    assert [(group.plan, group.version, group.segment, tally.events) for group, tally in models["m"].items()] == [
        ("p", "1", "all", 1), ("p", "1", "c=DE", 3), ("p", "2", "all", 2), ("q", "1", "all", 4)
    ]  # fmt: skip


def test_counters_are_those_of_the_first_marker_at_or_after_the_edge():
    merger = Merger(2)
    for offset, body in enumerate([marker(0, 10), marker(0, 30), marker(1, 40)]):
        merger.add(PaneRecord(offset, 0, 1, body))
    assert [each["consumed"] for each in merger.counters_at(20)] == [30, 40]
    assert [each["consumed"] for each in merger.counters_at(10)] == [10, 40]


def test_markers_that_say_the_same_plans_hold_them_once():
    merger = Merger(2)
    for offset, body in enumerate([marker(0, 10), marker(1, 10), marker(0, 20, "q"), marker(1, 20, "q")]):
        merger.add(PaneRecord(offset, 0, 1, body))
    first, second = (source.markers for source in merger.sources)
    assert [marked.plans for marked in first] == [{"m": "p"}, {"m": "q"}]
    assert all(one.plans is other.plans for one, other in zip(first, second, strict=True))


def test_a_grown_topic_and_an_unknown_stream_are_refused_by_name():
    merger = Merger(2)
    with pytest.raises(UnknownSourceError, match="has grown"):
        merger.add(PaneRecord(0, 0, 1, marker(2, 10)))
    with pytest.raises(UnknownSourceError, match="clicks"):
        merger.add(PaneRecord(0, 0, 1, Marker(0, "clicks", 10, {}, {}, {}, 0)))
    with pytest.raises(UnknownSourceError, match="snapshot has 2"):
        Merger(3).load(merger.header(), {})


def events_by_edge(bodies, sources=2):
    """Feed (epoch, body) pairs; edge -> events, in the order in which edges came out."""
    merger = Merger(sources)
    found = {}
    for offset, (epoch, body) in enumerate(bodies):
        if merger.add(PaneRecord(offset, 0, epoch, body)):
            for edge, models in merger.complete():
                found[edge] = sum(tally.events for tally in models["m"].values())
            merger.release()
    return found


def test_what_a_dead_owner_left_unmarked_is_forgotten_even_where_the_next_one_sends_something_else():
    found = events_by_edge([
        (1, Announcement(0)), (1, pane(0, 0, 5)), (1, pane(0, 0, 7, version="2")),
        (2, Announcement(0)), (2, pane(0, 0, 4)), (2, marker(0, 10)), (1, marker(1, 10)),
    ])  # fmt: skip
    assert found == {0: 4}


def test_so_it_is_in_the_very_pane_that_begins_where_the_last_mark_stands():
    found = events_by_edge([
        (1, Announcement(0)), (1, marker(0, 10)), (1, pane(0, 10, 5)), (1, pane(0, 20, 6)),
        (2, Announcement(0)), (2, pane(0, 10, 4)), (2, pane(0, 20, 3)), (2, marker(0, 30)), (1, marker(1, 30)),
    ])  # fmt: skip
    assert found == {10: 4, 20: 3}


def test_what_was_lost_is_told_with_one_marker_before_and_after_a_restore():
    def add(merger, *bodies):
        for body in bodies:
            merger.add(PaneRecord(0, 0, 1, body))

    def restored(merger):
        other = Merger(2)
        other.load(merger.header(), {})
        return other

    def holes(merger):
        return [(hole.start_ms, hole.end_ms, hole.partition, hole.events, hole.pane_records) for hole in merger.holes]

    first = Merger(2)
    add(first, marker(0, 10), marker(1, 10))
    first.lose(3)
    second = restored(first)  # lost, and no marker has told it yet
    add(second, replace(marker(0, 20), counters={"gap": 7}), marker(1, 20))
    told = [(10, 20, 0, 7, 3), (10, 20, 1, 0, 3)]
    assert holes(second) == told
    third = restored(second)
    add(third, replace(marker(0, 30), counters={"gap": 7}), marker(1, 30))
    assert holes(third) == told, "the same loss again"
    third.lose(1)
    add(third, replace(marker(0, 40), counters={"gap": 9}))
    assert holes(third) == [*told, (30, 40, 0, 2, 1)]


def test_nothing_is_added_to_a_marked_edge():
    found = events_by_edge([
        (1, pane(0, 0, 5)), (1, marker(0, 10)), (1, pane(0, 0, 7, version="2")), (1, marker(1, 10)),
    ])  # fmt: skip
    assert found == {0: 5}


def test_edges_are_ascending_however_many_become_complete_at_once():
    edges = [60_000 * place for place in range(0, 400, 7)]
    found = events_by_edge(
        [*((1, pane(0, edge, 1)) for edge in reversed(edges)), (1, marker(0, EDGE_END)), (1, marker(1, EDGE_END))]
    )
    assert list(found) == edges
