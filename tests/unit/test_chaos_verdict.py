"""The verdict of the chaos run, tested: a right run is found right, and each damage to the evidence turns up under its name.

The evidence is made in this process, by the product's own stages, with an owner that dies and one that sends it all again.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime as dt
import json
import random
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from load_tests.chaos import verdict as verdict_module
from load_tests.chaos import wire
from load_tests.chaos.evidence import Evidence, Record
from load_tests.chaos.verdict import Verdict, judge_config
from stream.chunks import Plain, from_plain
from stream.collector import Collector
from stream.config import Config, config_from
from stream.decode import decode
from stream.epochs import epoch_of, stamp
from stream.journal import encode_decision
from stream.merging import PaneRecord
from stream.monitor import Monitor
from stream.panes import EDGE_END, Announcement, decode_record, encode_announcement
from stream.planning import collector_hash, collector_plan, model_plan, monitor_settings
from stream.preflight import build_from_file
from stream.reference_records import reference_outputs
from stream.stage import Decision, Output

PARTITIONS, MONITORS = 2, 2
START_MS = 1_795_000_000_000
COUNTRIES = ("de", "fr", "it")
EVENTS = 6_000
INDEPENDENT = ("wire", "reading", "recount", "kept", "windowing")


def reference_file(path: Path, seed: int) -> None:
    r = random.Random(seed)
    first = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    columns = {
        "amount": [r.gauss(50, 10) for _ in range(12_000)],
        "country": [r.choice(COUNTRIES) for _ in range(12_000)],
        "score": [r.random() for _ in range(12_000)],
        "timestamp": [first + dt.timedelta(milliseconds=12 * i) for i in range(12_000)],
    }
    pq.write_table(pa.table(columns), path)


def settings_of(file: str = "first.parquet") -> dict:
    return {
        "kafka": {"bootstrap_servers": "unused:9092"},
        "topics": {"predictions": {"name": "predictions", "lateness": "2s"}},
        "resolution": "1s",
        "monitors": MONITORS,
        "defaults": {"false_alarms": "1 per 1h", "window": {"every": "3s", "min_events": 100}},
        "models": {
            "m": {
                "reference": {"file": file, "time": "timestamp"},
                "segments": {"country": ["de", "fr"]},
                "targets": {"amount": {"range": [20.0, 80.0]}},
            }
        },
    }


def config_of(folder: Path, file: str = "first.parquet") -> Config:
    return config_from(settings_of(file), base=folder)


def value_of(number: int, r: random.Random) -> bytes | None:
    """Every kind of event: late, future, no id, unknown model, bad feature, cut JSON, tombstone, category as a number."""
    at = START_MS + 5 * number + r.randrange(-800, 800)
    shift = 15.0 if number > EVENTS // 4 else 0.0
    event = {
        "prediction_id": number if number % 7 == 0 else f"id-{number}",
        "model": "m",
        "version": str(1 + (number % 9 == 0)),
        "features": {"amount": round(r.gauss(50 + shift, 10), 3), "country": r.choice((*COUNTRIES, "es"))},
        "score": round(r.random(), 4),
        "segments": {"country": r.choice(COUNTRIES)},
    }
    kind = number % 100
    at += {1: -60_000, 2: 3_600_000}.get(kind, 0)
    event["timestamp"] = dt.datetime.fromtimestamp(at / 1000, dt.UTC).isoformat(timespec="milliseconds")
    if kind == 3:
        del event["prediction_id"]
    elif kind == 4:
        event["model"] = "nobody"
    elif kind == 5:
        event["features"] = {"amount": "much", "country": 1.0}
    elif kind == 6:
        event["features"] = {"amount": float("nan"), "country": True}
    elif kind == 7:
        event["score"] = "high"
    elif kind == 8:
        return None
    data = json.dumps(event).encode()
    return data[:40] if kind == 9 else data


class World:
    """Topics in memory. `roles`: role -> partition -> records."""

    def __init__(self, folder: Path) -> None:
        self.whole = Evidence()  # once everything is written
        self.folder = folder
        self.config = config_of(folder)
        first, second = (build_from_file(config_of(folder, file), "m") for file in ("first.parquet", "second.parquet"))
        self.profiles = {profile.id: profile for profile in (first, second)}
        self.plan, self.layout = collector_plan(self.config, {"m": first})
        self.second = model_plan(self.config, "m", second, self.layout.paths)
        roles = {"panes": MONITORS, "windows": MONITORS, "alerts": MONITORS, "predictions": PARTITIONS}
        roles |= {"dead-letters": PARTITIONS, "journal": 1, "control": 1, "references": 1}
        self.roles: dict[str, list[list[Record]]] = {role: [[] for _ in range(n)] for role, n in roles.items()}
        for profile in self.profiles.values():
            for output in reference_outputs(profile):
                self.send(output, 0)

    def send(self, output: Output, epoch: int) -> None:
        output = stamp(output, epoch)
        place = output.partition
        if place is None:
            place = wire.text_hash((output.key or b"").decode()) % MONITORS
        self.put(output.topic, place, output.key, output.value, headers=output.headers)

    def put(self, role: str, place: int, key, value, *, at_ms: int = START_MS, headers=()) -> None:
        log = self.roles[role][place]
        log.append(Record(place, len(log), at_ms, key, value, tuple(headers)))

    def evidence(self) -> Evidence:
        return Evidence(
            {role: [record for log in logs for record in log] for role, logs in self.roles.items()},
            {role: [0] * len(logs) for role, logs in self.roles.items()},
            {role: [len(log) for log in logs] for role, logs in self.roles.items()},
        )

    def collector(self, partition: int) -> Collector:
        return Collector(
            partition,
            self.plan,
            monitors=MONITORS,
            topic="predictions",
            config_hash=collector_hash(self.config, self.plan),
            app_version="1",
        )

    def apply(self, collector: Collector, start: int, stop: int) -> list[Output]:
        log = self.roles["predictions"][collector._partition][start:stop]
        run = [Plain(r.offset, r.timestamp_ms, r.key, r.value, (), r.offset, r.offset + 1) for r in log]
        collector.apply("predictions", decode(from_plain(run), self.layout))
        sent, collector.outbox = collector.outbox, []
        return sent

    def run_partition(self, p: int) -> None:
        """One owner, dead between a snapshot and its next; a second one, which begins at the snapshot and switches plans."""
        records = self.roles["predictions"][p]
        third = len(records) // 3
        self.announce(p, 1)
        collector = self.collector(p)
        self.decide(collector, p, 1, 1, "plan", {"model": "m", "plan": self.plan.models[0].hash}, 0)
        collector.offer(self.second)
        for at in range(0, third, 500):
            for output in self.apply(collector, at, min(at + 500, third)):
                self.send(output, 1)
        saved = collector.full_blobs()
        dying = self.apply(collector, third, third + 400)
        for output in dying[:-2]:  # it dies before its last marker
            self.send(output, 1)
        self.announce(p, 2)
        collector = self.collector(p)
        collector.offer(self.second)
        collector.load(saved)
        for at in range(third, 2 * third, 500):
            for output in self.apply(collector, at, min(at + 500, 2 * third)):
                self.send(output, 2)
        self.decide(collector, p, 2, 2, "plan", {"model": "m", "plan": self.second.hash}, 2 * third)
        for output in self.apply(collector, 2 * third, len(records)):
            self.send(output, 2)
        self.decide(collector, p, 2, 3, "tick", {"until_ms": START_MS + 5 * EVENTS + 10_000}, len(records))
        self.decide(collector, p, 2, 4, "tick", {"until_ms": EDGE_END}, len(records))

    def announce(self, p: int, epoch: int) -> None:
        for monitor in range(MONITORS):
            self.send(Output("panes", None, encode_announcement(Announcement(p)), monitor), epoch)

    def decide(self, collector, p: int, epoch: int, number: int, kind: str, body: dict, position: int) -> None:
        decision = Decision(number, kind, {"predictions": position}, body)
        collector.decide(decision)
        for _ in range(2):  # a copy of the journal may be written again
            self.send(encode_decision("collector", p, decision), epoch)
        for output in collector.outbox:
            self.send(output, epoch)
        collector.outbox.clear()

    def run_monitor(self, partition: int) -> None:
        monitor = Monitor(
            partition,
            sources=PARTITIONS,
            settings=monitor_settings(self.config),
            profiles=self.profiles,
            app_version="1",
        )
        for record in self.roles["panes"][partition]:
            fed = PaneRecord(
                record.offset, record.timestamp_ms, epoch_of(record.headers), decode_record(record.value), record.value
            )
            monitor.apply("panes", [fed])
        for place, output in enumerate(monitor.outbox):
            for _ in range(1 + (place % 5 == 0)):  # at least once
                self.send(output, 1)


@pytest.fixture(autouse=True)
def each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The uninterrupted run over panes that a test leaves alone is made once."""
    original = verdict_module.uninterrupted

    def once(evidence: Evidence, config: Config) -> list:
        panes = evidence.records["panes"]
        if id(panes) not in REMEMBERED:
            REMEMBERED[id(panes)] = (panes, original(evidence, config))  # kept, so that no other list takes its id
        return REMEMBERED[id(panes)][1]

    monkeypatch.setattr(verdict_module, "uninterrupted", once)


REMEMBERED: dict = {}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("chaos")
    reference_file(folder / "first.parquet", 1)
    reference_file(folder / "second.parquet", 2)
    made = World(folder)
    r = random.Random(3)
    for number in range(EVENTS):
        value = value_of(number, r)
        for _ in range(1 + (number % 100 == 10)):
            made.put("predictions", number % PARTITIONS, b"k", value, at_ms=START_MS + 5 * number + 1_000)
    for p in range(PARTITIONS):
        made.run_partition(p)
    for monitor in range(MONITORS):
        made.run_monitor(monitor)
    made.whole = made.evidence()
    return made


def test_a_right_run_is_found_right(world: World, tmp_path: Path) -> None:
    evidence = world.whole
    evidence.save(tmp_path)
    assert Evidence.load(tmp_path) == evidence
    found = judge_config(evidence, world.config)
    assert (found.lost, found.double, found.wrong, found.spurious, found.notes) == ((), (), (), (), ())
    assert found.right
    assert found.events == len(evidence.of("predictions"))
    counted = found.accounting
    assert counted["consumed"] == sum(
        counted[term] for term in ("applied", "dead_letters", "duplicates", "late", "tombstones")
    )
    assert all(counted[term] > 20 for term in ("applied", "dead_letters", "duplicates", "late", "tombstones"))
    assert found.decisions == 4 * PARTITIONS
    assert found.alerts > 0
    assert found.windows > 20
    assert found.panes > 200
    assert found.repeats > 0


# ---- the test of the test: each damage under its name


def changed(evidence: Evidence, role: str, change: Callable[[list[Record]], list[Record]]) -> Evidence:
    return dataclasses.replace(evidence, records=evidence.records | {role: change(list(evidence.of(role)))})


def judged(world: World, role: str, change: Callable[[list[Record]], list[Record]]) -> Verdict:
    return judge_config(changed(world.whole, role, change), world.config)


def kinds(found: Verdict) -> set[str]:
    return {kind for kind in verdict_module.KINDS if getattr(found, kind)}


def is_pane(record: Record) -> bool:
    return record.key is not None


def sent_once(world: World) -> Record:
    """The record of a whole pane of the model, from the middle of the run, that was written once."""
    records = [record for record in world.whole.of("panes") if is_pane(record)]
    values = [record.value for record in records]
    for record in records[len(records) // 2 :]:
        pane = wire.record(record.value)
        if values.count(record.value) == 1 and (pane.model, pane.version, pane.segment) == ("m", "1", "all"):
            return record
    raise AssertionError("no such pane")


def repacked(record: Record, change: Callable[[dict, dict], None]) -> Record:
    """The pane with other content, in its proper container."""
    box = wire.unbox(record.value)
    sections = {name: array.copy() for name, array in box.sections.items()}
    change(box.header, sections)
    from stream import container

    return record._replace(value=container.encode(box.kind, 1, box.header, sections))


def add_one(header: dict, sections: dict) -> None:
    del header
    sections["bins"][np.flatnonzero(sections["bins"])[0]] += 1


def test_a_pane_that_is_missing_is_lost(world: World) -> None:
    gone = sent_once(world)
    found = judged(world, "panes", lambda records: [r for r in records if r != gone])
    assert kinds(found) == {"lost"}
    assert len(found.lost) == 1
    assert found.lost[0].startswith("pane (")


def test_a_pane_sent_again_under_a_new_epoch_is_dropped_by_the_monitors_and_no_finding(world: World) -> None:
    again = stamped(sent_once(world), 9)
    found = judged(world, "panes", lambda records: insert(records, again, len(records)))
    assert kinds(found) == set()
    assert found.repeats == judge_config(world.whole, world.config).repeats + 1


def stamped(record: Record, epoch: int) -> Record:
    return record._replace(headers=(("epoch", str(epoch).encode()),))


def insert(records: list[Record], record: Record, place: int) -> list[Record]:
    return sorted(
        [*records[:place], record._replace(offset=record.offset + 10_000_000), *records[place:]], key=lambda r: r[:2]
    )


def before_its_marker(world: World, pane: Record, monitor: int) -> Record:
    """The pane in the log of this monitor, where it would count: before the marker that passes it."""
    body = wire.record(pane.value)
    for record in world.whole.of("panes", monitor):
        marker = wire.record(record.value)
        if isinstance(marker, wire.Marker) and marker.partition == body.partition and marker.edge_ms > body.edge_ms:
            return stamped(pane, 2)._replace(partition=monitor, offset=record.offset - 0.5)
    raise AssertionError("no marker passes it")


def test_a_pane_that_counts_twice_is_double(world: World) -> None:
    """In the other monitor's partition, where nothing drops it; and in its own under another plan's name."""
    pane = sent_once(world)
    twin = before_its_marker(world, pane, 1 - pane.partition)
    found = judged(world, "panes", lambda records: sorted([*records, twin], key=lambda r: r[:2]))
    assert kinds(found) == {"double"}
    renamed = repacked(pane, lambda header, _: header.update(plan="f" * 16))._replace(offset=pane.offset - 0.5)
    found = judged(world, "panes", lambda records: sorted([*records, stamped(renamed, 2)], key=lambda r: r[:2]))
    assert kinds(found) == {"double"}


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("bins", add_one),
        ("sum", lambda _, sections: sections["sums"].__iadd__(1e-6)),
        ("missing", lambda _, sections: sections["tally"].__iadd__(1)),
        ("extremes", lambda _, sections: sections["extremes"].__iadd__(1.0)),
        ("distinct", lambda _, sections: sections["distinct"].__iadd__(1)),
        ("schema", lambda header, _: header.update(schema=[1_000, 0, {"invented": [1, 0, 0, 0, 0, 0, 0]}, []])),
    ],
)
def test_a_pane_with_another_value_is_wrong(world: World, what: str, change: Callable[[dict, dict], None]) -> None:
    pane = sent_once(world)
    found = judged(world, "panes", lambda records: [repacked(r, change) if r == pane else r for r in records])
    assert kinds(found) == {"wrong"}
    assert any(what in text for text in found.wrong)


def test_a_pane_with_more_or_fewer_events_counts_some_twice_or_loses_them(world: World) -> None:
    pane = sent_once(world)
    for by, kind in ((1, "double"), (-1, "lost")):
        other = repacked(pane, lambda header, _, by=by: header.update(events=header["events"] + by))
        assert kinds(judged(world, "panes", lambda rs, other=other: [other if r == pane else r for r in rs])) == {kind}


def test_an_invented_pane_is_spurious(world: World) -> None:
    pane = sent_once(world)
    other = repacked(pane, lambda header, _: header.update(version="77"))._replace(offset=pane.offset - 0.5)
    found = judged(world, "panes", lambda records: sorted([*records, stamped(other, 2)], key=lambda r: r[:2]))
    assert kinds(found) == {"spurious"}


@pytest.mark.parametrize(("term", "kind"), [("applied", "double"), ("late", "wrong"), ("consumed", "wrong")])
def test_a_markers_counter_that_differs_is_found(world: World, term: str, kind: str) -> None:
    last = [r for r in world.whole.of("panes") if not is_pane(r)][-1]

    def more(header: dict, sections: dict) -> None:
        del sections
        header["counters"][term] += 1

    found = judged(world, "panes", lambda records: [repacked(r, more) if r == last else r for r in records])
    assert kinds(found) == {kind}


def test_a_missing_decision_is_lost_and_a_contradiction_wrong(world: World) -> None:
    found = judged(world, "journal", lambda rs: [r for r in rs if orjson.loads(r.value)["number"] != 2])
    assert "lost" in kinds(found)
    assert any("decision 2" in text for text in found.lost)
    first = world.whole.of("journal")[0]
    other = first._replace(value=orjson.dumps(orjson.loads(first.value) | {"kind": "tick", "body": {"until_ms": 1}}))
    assert any("two decisions" in text for text in judged(world, "journal", lambda rs: [*rs, other]).wrong)


def test_windows_that_are_missing_changed_doubled_or_invented(world: World) -> None:
    window = next(r for r in world.whole.of("windows")[::-1] if orjson.loads(r.value)["targets"])

    def other(**more) -> bytes:
        body = orjson.loads(window.value)
        body["window"] |= more
        return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)

    found = judged(world, "windows", lambda rs: [r for r in rs if r.value != window.value])
    assert kinds(found) == {"lost"}
    body = orjson.loads(window.value)
    target = next(iter(body["targets"].values()))
    target["bins"][3] += 1
    wrong = window._replace(value=orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    assert kinds(judged(world, "windows", lambda rs: [wrong if r.value == window.value else r for r in rs])) == {
        "wrong"
    }
    assert kinds(judged(world, "windows", lambda rs: [*rs, wrong])) == {"wrong"}  # repeats must be equal
    overlapping = window._replace(value=other(start_ms=body["window"]["start_ms"] + 1_000))
    assert "double" in kinds(judged(world, "windows", lambda rs: [*rs, overlapping]))
    apart = window._replace(value=other(start_ms=1_000, end_ms=2_000))
    assert kinds(judged(world, "windows", lambda rs: [*rs, apart])) == {"spurious"}


def test_alerts_that_are_missing_changed_or_invented(world: World) -> None:
    alert = world.whole.of("alerts")[0]
    body = orjson.loads(alert.value)

    def of(**more) -> Record:
        return alert._replace(value=orjson.dumps(body | more))

    assert kinds(judged(world, "alerts", lambda rs: [r for r in rs if r.value != alert.value])) == {"lost"}
    changed_body = of(data=body["data"] | {"summary": "nothing"})
    assert kinds(judged(world, "alerts", lambda rs: [changed_body if r == alert else r for r in rs])) == {"wrong"}
    assert kinds(judged(world, "alerts", lambda rs: [*rs, of(id="invented")])) == {"spurious"}
    history = of(data=body["data"] | {"historical": not body["data"]["historical"]})
    assert kinds(judged(world, "alerts", lambda rs: [*rs, alert, history])) == set()  # may be said again, and later


def test_dead_letters_that_are_missing_changed_or_invented(world: World) -> None:
    letter = world.whole.of("dead-letters")[0]
    headers = dict(letter.headers)

    def of(**more) -> Record:
        return letter._replace(
            headers=tuple((headers | {f"dlq.{name}": value for name, value in more.items()}).items())
        )

    def without(records: list[Record]) -> list[Record]:
        return [r for r in records if r.headers != letter.headers]

    assert kinds(judged(world, "dead-letters", without)) == {"lost"}
    assert kinds(judged(world, "dead-letters", lambda rs: [*rs, letter])) == set()
    assert kinds(judged(world, "dead-letters", lambda rs: [*rs, of(detail=b"else")])) == {"wrong"}
    assert kinds(judged(world, "dead-letters", lambda rs: [*without(rs), of(reason=b"bom")])) == {"wrong"}
    assert kinds(judged(world, "dead-letters", lambda rs: [*without(rs), letter._replace(value=b"")])) == {"wrong"}
    assert kinds(judged(world, "dead-letters", lambda rs: [*rs, of(offset=b"0")])) == {"spurious"}


def test_an_event_that_nobody_counted_and_one_that_nobody_sent(world: World) -> None:
    """The log has one event more, or one less, than what was counted."""
    whole = world.whole.of("predictions")
    event = orjson.loads(whole[500].value)
    twin = whole[500]._replace(offset=whole[500].offset + 0.5, value=orjson.dumps(event | {"prediction_id": "another"}))
    assert "lost" in kinds(judged(world, "predictions", lambda rs: [*rs[:501], twin, *rs[501:]]))
    assert "double" in kinds(judged(world, "predictions", lambda rs: [*rs[:500], *rs[501:]]))


@pytest.mark.parametrize(
    "rule",
    [
        {"topics": {"predictions": {"name": "predictions", "lateness": "1990ms"}}},
        {"max_future_skew": "2h"},
        {"dedup": False},
        {"defaults": {"false_alarms": "1 per 1h", "window": {"every": "4s", "min_events": 100}}},
    ],
    ids=["lateness", "future", "dedup", "window"],
)
def test_what_was_counted_by_other_rules_is_found(world: World, rule: dict) -> None:
    """As if the product had applied a rule wrongly: each rule of time, identity and windows decides about the verdict."""
    config = config_from(settings_of() | rule, base=world.folder)
    assert kinds(judge_config(world.whole, config))


# ---- independence


@pytest.mark.parametrize("name", INDEPENDENT)
def test_the_recount_shares_no_code_with_the_product(name: str) -> None:
    path = Path(verdict_module.__file__).with_name(f"{name}.py")
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add(node.module)
    own = {f"load_tests.chaos.{each}" for each in INDEPENDENT} | {"load_tests.chaos"}
    assert not {each for each in names if each.split(".")[0] in {"stream", "detectors", "tests"}}
    assert {each for each in names if each.startswith("load_tests")} <= own


def test_what_is_no_record_is_refused_by_the_reader() -> None:
    data = wire.rebox("pane", {"a": [1]}, {"x": ("<f8", b"\0" * 8)})
    assert wire.unbox(data).sections["x"].tolist() == [0.0]
    for damaged in (b"", data[:20], data[:-1], b"X" + data[1:], data[:30] + b"\xff" + data[31:]):
        with pytest.raises((wire.WireError, ValueError, msgpack.UnpackException)):
            wire.unbox(damaged)
