"""Schema changes as alerts: features that are new in the traffic, lost from it, or of another type than the reference's. Pure.

    new       in at least 1 % of the events looked at (schema_sample.py), and neither in the reference nor configured
    lost      missing in at least 99 % of the events, and in at most 80 % of the reference: far beyond a spike of missing values
    retyped   at least half of its values are none of its kind (of a category: unseen), most often another JSON type

On without configuration, of kind data_quality, with no promise: the rules are fixed and far from what chance does. Of the inputs of
`all`, in stretches: judged windows in a row, added up until there are 50 events, mostly one. What holds in two stretches in a row opens an
incident, what has ended in `resolve_after` stretches in a row resolves it; without an event looked at a stretch says nothing of names and
types. An incident says names, shares and types, never a value. A feature with strata is compared with the windows of the stretch's hours;
if it is missing there, too, nothing is said.

Bounds. At most OWN_MAX incidents a change are a feature's own; all others of that change share one, which says how many. So
do all names that were there from the first windows on: a reference of 20 columns of 200 is one alert, not 180. What a
model's events had while its reference was learnt from them is no news, nor are as many names beyond those that are kept. Names
that change from event to event are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from detectors.reference import ReferenceProfile
from stream.alerts import AlertBook, Incident, Kind, Transition
from stream.limits import limit
from stream.monitor_settings import digest
from stream.plan import ALL, OTHER
from stream.schema_sample import NAMES_MAX, JsonType, SchemaSample
from stream.schema_sights import (
    EVENTS_MIN,
    LOST_SHARE,
    NEW_SHARE,
    RETYPED_SHARE,
    Change,
    Key,
    Known,
    Sight,
    Stretch,
    sights,
)
from stream.stage import Output
from stream.tally import Sections, Tally
from stream.window_records import window_body
from stream.windows import Window
from stream.wording import clock, percent, since

CHECK = "schema_change"
CONFIRMED = 2  # stretches in a row
FIRST_STRETCHES = 3  # what is in them was there when watching began
OWN_MAX = limit(
    "schema_incidents_max", 8, "incidents of one kind of schema change with a name of their own; the rest share one"
)
LEARNT_MAX = limit(
    "schema_names_learnt_max", 256, "names that the events had while their reference was learnt, which are no news"
)
NAMES_SHOWN = 10
BACK = {"new": "it is no longer seen", "lost": "it is back", "retyped": "its values are of its kind again"}


@dataclass(slots=True)
class Entry:
    """One change of one feature. run, quiet: stretches in a row with it, without it; since_ms: start of the run."""

    since_ms: int
    run: int = 0
    quiet: int = 0
    confirmed: bool = False


class SchemaWatch:
    """The schema incidents of one model. `open`: by change and name; OTHER: those without an incident of their own."""

    def __init__(self, book: AlertBook) -> None:
        self._book = book
        self.stretches = 0  # judged, of this reference
        self.stretch: Stretch | None = None  # windows that are not judged yet: too few events
        self.learnt: set[str] = set()
        self.learnt_crowd = 0.0  # the most names an event that were beyond NAMES_MAX in a window of learning
        self.entries: dict[Key, Entry] = {}
        self.open: dict[Key, Incident] = {}
        self.told: dict[Change, int] = {}  # how many names the last event of the shared incident said

    def learn(self, sample: SchemaSample | None) -> None:
        """A window that the reference is learnt from."""
        if sample is None or not sample.looked:
            return
        self.learnt_crowd = max(self.learnt_crowd, sample.crowd / sample.looked)
        for name in sorted(sample.names):
            if len(self.learnt) < LEARNT_MAX:
                self.learnt.add(name)

    def observe(
        self, window: Window, whole: Tally, profile: ReferenceProfile, versions: Sequence[str], *, historical: bool
    ) -> Iterator[Output]:
        """One judged window: everything that was counted of it in segment "all", by the versions that feed the inputs.

        `whole` has the targets of the window before, or `end` or `forget` came between.
        """
        if not whole.events:
            return
        stretch, self.stretch = self.stretch, None
        if stretch is None:
            stretch = Stretch.of(window, whole, versions)
        else:
            stretch.add(window, whole, versions)
        if stretch.events < EVENTS_MIN:
            self.stretch = stretch
            return
        self.stretches += 1
        known = Known(frozenset(self.entries), frozenset(self.learnt), self.learnt_crowd)
        seen, unknown = sights(stretch, whole.names, profile, known)
        if not (seen or self.entries or self.open):
            return  # as in nearly all stretches
        opened, ended = self._advance(seen, unknown, stretch.window)
        told = _Told(stretch, profile.id, historical)
        for key in opened:
            own = sum(change is key[0] and name != OTHER for change, name in self.open)
            first = key[0] is Change.NEW and self.stretches <= FIRST_STRETCHES
            if key[1] != OTHER and own < OWN_MAX and not first:
                incident = self._opened(key, self.entries[key].since_ms, told)
                yield self._event(Transition.OPENED, incident, told, self._said(key, seen[key], told))
        for key in ended:
            del self.entries[key]
            own_incident = self.open.pop(key, None) if key[1] != OTHER else None
            if own_incident is not None:
                yield self._ended(key, own_incident, told)
        for change in Change:
            yield from self._share(change, told)

    def end(self, reason: str, end_ms: int, *, historical: bool) -> list[Output]:
        """Resolve all: another reference is in force."""
        last = {"historical": historical}
        found = [self._book.resolved(each, reason, end_ms, each.data | last) for _, each in sorted(self.open.items())]
        self.stretches, self.learnt, self.entries, self.open, self.told = 0, set(), {}, {}, {}
        self.learnt_crowd, self.stretch = 0.0, None
        return found

    def forget(self, targets: Iterable[str], reason: str, end_ms: int, *, historical: bool) -> list[Output]:
        """Other targets than before: these features are no longer watched."""
        self.stretch = None
        gone = set(targets)
        found = []
        for key in sorted(key for key in self.entries if key[1] in gone):
            del self.entries[key]
            incident = self.open.pop(key, None)
            if incident is not None:
                data = incident.data | {"historical": historical}
                found.append(self._book.resolved(incident, reason, end_ms, data))
        return found

    def _advance(self, sights: Mapping[Key, Sight], unknown: set[Key], window: Window) -> tuple[list[Key], list[Key]]:
        """(changes that are confirmed now, confirmed ones that have ended), in canonical order."""
        opened, ended = [], []
        for key in sorted({*self.entries, *sights} - unknown):
            entry = self.entries.setdefault(key, Entry(window.start_ms))
            if key in sights:
                entry.run, entry.quiet = entry.run + 1, 0
                if entry.run == CONFIRMED and not entry.confirmed:
                    entry.confirmed = True
                    opened.append(key)
                continue
            entry.run, entry.quiet = 0, entry.quiet + 1
            if not entry.confirmed:
                del self.entries[key]
            elif entry.quiet >= self._book.settings.resolve_after:
                ended.append(key)
        return opened, ended

    # ---- incidents ----------------------------------------------------------------------------------------------------

    def _share(self, change: Change, told: _Told) -> Iterator[Output]:
        """The incident of all that have none of their own: opened, escalated when it has doubled, resolved when none is left."""
        key = (change, OTHER)
        confirmed = (own for own, entry in sorted(self.entries.items()) if own[0] is change and entry.confirmed)
        names = [own[1] for own in confirmed if own == key or own not in self.open]
        incident = self.open.get(key)
        if not names:
            if incident is not None:
                del self.open[key]
                self.told.pop(change, None)
                yield self._ended(key, incident, told)
            return
        if incident is None:
            start_ms = min(self.entries[change, name].since_ms for name in names)
            incident, transition = self._opened(key, start_ms, told), Transition.OPENED
        elif len(names) >= 2 * self.told[change]:
            transition = Transition.ESCALATED
        else:
            return
        self.told[change] = len(names)
        yield self._event(transition, incident, told, self._all_said(change, names, incident, told))

    def _opened(self, key: Key, since_ms: int, told: _Told) -> Incident:
        change, name = key
        model = self._book.settings.model
        incident = self.open[key] = Incident(
            id=digest(model, told.reference, ALL, CHECK, change.value, name, told.window.end_ms),
            kind=Kind.DATA_QUALITY,
            series=told.reference,
            segment=ALL,
            target=name,
            opened_ms=told.window.end_ms,
            since_ms=since_ms,
            promised=False,
            next_step=0,
            versions=told.stretch.versions,
        )
        return incident

    def _said(self, key: Key, sight: Sight, told: _Told) -> dict[str, Any]:
        change, name = key
        types = {kind.name.lower(): count / sum(sight.types) for kind, count in zip(JsonType, sight.types) if count}  # noqa: B905
        kind = max(types, key=lambda each: types[each], default="")
        share = percent(sight.share)
        text, more = {
            Change.NEW: (
                f"is new among the features: {kind} in {share} of the events",
                "; the reference does not have it, so that it is not watched",
            ),
            Change.LOST: (f"is lost: missing in {share} of the events, in the reference in {percent(sight.was)},", ""),
            Change.RETYPED: (f"has another type: {share} of its values are none of its kind, most often {kind},", ""),
        }[change]
        length = self._book.settings.arrays.get(name)
        if length is not None and change is Change.RETYPED:
            now = "another array" if kind == JsonType.ARRAY.name.lower() else kind
            text = f"is no array of {length} numbers: {share} of its values are none, most often {now},"
        when = since(self.entries[key].since_ms, told.window.end_ms, told.stretch.events)
        limits = {Change.NEW: NEW_SHARE, Change.LOST: LOST_SHARE, Change.RETYPED: RETYPED_SHARE}
        facts = {
            "change": change.value,
            "share": sight.share,
            "types": types,
            "events_looked_at": told.stretch.sample.looked,
        }
        return {"summary": f"{name} {text} {when}{more}.", CHECK: facts} | _measured(
            sight.share, limits[change], sight.was
        )

    def _all_said(self, change: Change, names: Sequence[str], incident: Incident, told: _Told) -> dict[str, Any]:
        named = [name for name in names if name != OTHER]
        shown = ", ".join(named[:NAMES_SHOWN])
        more = f" and {len(named) - NAMES_SHOWN} more" if len(named) > NAMES_SHOWN else ""
        what = {
            Change.NEW: "are new: the reference does not have them, so that they are not watched",
            Change.LOST: "are lost: missing in nearly all events",
            Change.RETYPED: "have another type than in the reference",
        }
        parts = []
        if named:
            few = "1 feature" if len(named) == 1 else f"{len(named)} features"
            parts.append(f"{few} ({shown}{more}) {what[change]}")
        if OTHER in names:
            parts.append(
                f"the events carry more than {NAMES_MAX} such names in a window, or names of features that change from event to event: "
                "they are counted only"
            )
        facts = {"change": change.value, "names": named[:NAMES_SHOWN], "more": max(0, len(named) - NAMES_SHOWN)}
        when = since(incident.since_ms, told.window.end_ms, told.stretch.events)
        return {"summary": f"{'; '.join(parts)} {when}.", CHECK: facts} | _measured(float(len(names)), 0.0, 0.0)

    def _ended(self, key: Key, incident: Incident, told: _Told) -> Output:
        reason = BACK[key[0]] if key[1] != OTHER else "none is left"
        what = f"{key[1]}: {reason}" if key[1] != OTHER else f"features that were {key[0]}: {reason}"
        stretches, when = self._book.settings.resolve_after, clock(incident.opened_ms, told.window.end_ms)
        said = {"summary": f"{what}, {stretches} judgements in a row; open since {when}.", "reason": reason}
        kept = {name: incident.data[name] for name in (CHECK, "evidence", "effect") if name in incident.data}
        return self._event(Transition.RESOLVED, incident, told, kept | said)

    def _event(self, transition: Transition, incident: Incident, told: _Told, said: Mapping[str, Any]) -> Output:
        data = {
            "onset": "sudden",
            "historical": told.historical,
            "largest_changes": [],
            "consequence": {"verdict": "unknown", "why": "no labels yet"},
            "events": told.stretch.events,
            "window": window_body(told.window),
            "reference": told.reference,
        }
        return self._book.event(transition, incident, told.window.end_ms, data | dict(said))

    # ---- snapshot -----------------------------------------------------------------------------------------------------

    def header(self) -> dict[str, Any]:
        """For the model's own blob, with `sections`."""
        return {
            "windows": self.stretches,
            "stretch": None if self.stretch is None else self.stretch.header(),
            "learnt": sorted(self.learnt),
            "learnt_crowd": self.learnt_crowd,
            "entries": [
                [change.value, name, asdict(self.entries[change, name])] for change, name in sorted(self.entries)
            ],
            "open": [
                [change.value, asdict(self.open[change, name]) | {"kind": Kind.DATA_QUALITY.value}]
                for change, name in sorted(self.open)
            ],
            "told": {change.value: count for change, count in sorted(self.told.items())},
        }

    def sections(self) -> Sections:
        return {} if self.stretch is None else self.stretch.sections()

    def load(self, header: Mapping[str, Any], sections: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of `header` and `sections`."""
        self.stretches, self.learnt = header["windows"], set(header["learnt"])
        saved = header.get("stretch")  # versions that judged each window alone had none
        self.stretch = None if saved is None else Stretch.from_sections(saved, sections)
        self.learnt_crowd = header.get("learnt_crowd", 0.0)  # the first version had none
        self.entries = {(Change(change), name): Entry(**saved) for change, name, saved in header["entries"]}
        self.told = {Change(change): count for change, count in header["told"].items()}
        self.open = {}
        for change, saved in header["open"]:
            incident = Incident(**{**saved, "kind": Kind(saved["kind"]), "versions": tuple(saved["versions"])})
            self.open[Change(change), incident.target] = incident


@dataclass(frozen=True, slots=True)
class _Told:
    """What all events of a stretch share."""

    stretch: Stretch
    reference: str
    historical: bool

    @property
    def window(self) -> Window:
        return self.stretch.window


def _measured(statistic: float, threshold: float, was: float) -> dict[str, Any]:
    return {
        "evidence": {
            "statistic": statistic,
            "threshold": threshold,
            "false_alarms": "not limited",
            "promise": "none: a fixed rule",
            "tolerance": 0.0,
        },
        "effect": {
            "shift": None,
            "unit": "share of the events",
            "reference": {"share": was},
            "now": {"share": statistic},
        },
    }
