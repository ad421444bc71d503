"""`driftline explain`: every setting that is in force, its value, where it comes from, and what it means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from detectors.reference import ReferenceProfile
from stream.config_loader import LoadedConfig
from stream.look_alikes import look_alikes
from stream.planning import monitor_settings
from stream.quantities import Duration
from stream.tolerances import Taken, taken
from stream.yaml_places import Key, dotted

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value. `origin` is "default", FILE:LINE, or the reference that says it."""

    path: str
    value: str
    origin: str
    meaning: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def explain(loaded: LoadedConfig, references: dict[str, ReferenceProfile] | None = None) -> list[Setting]:
    """All settings in the order of the models; secrets show their reference or a mask, never a value."""
    settings = list(_section(loaded.config, (), loaded))
    for model in loaded.config.models:
        settings += _effective(loaded, model)
        profile = (references or {}).get(model)
        if profile is not None:
            settings += _from_reference(loaded, model, profile)
    return settings


def warnings(loaded: LoadedConfig, references: dict[str, ReferenceProfile] | None = None) -> list[str]:
    """Names that look alike and are not the same, in the configuration and the references: one of them is a mistake."""
    found = _alike("models", loaded.config.models)
    for name, model in loaded.config.models.items():
        profile = (references or {}).get(name)
        targets = [*model.targets, *(target.name for target in (profile.targets if profile is not None else ()))]
        found += _alike(f"models.{dotted((name,))}.targets", targets)
        found += _alike(f"models.{dotted((name,))}.segments", model.segments)
        for key, values in model.segments.items():
            found += _alike(f"models.{dotted((name,))}.segments.{dotted((key,))}", values)
    return found


def _alike(where: str, names: Iterable[str]) -> list[str]:
    return [
        f"{where}: {' and '.join(map(ascii, group))} look alike and are different names" for group in look_alikes(names)
    ]


def _origin(path: Key, loaded: LoadedConfig) -> str:
    """Where the value stands: the key itself, or the text around it that stands for it (a bare topic name, `auto`)."""
    for length in range(len(path), 0, -1):
        place = loaded.places.get(path[:length])
        if place is not None:
            return f"{loaded.file}:{place.key[0]}"
    return DEFAULT


def _section(section: BaseModel, path: Key, loaded: LoadedConfig) -> Iterator[Setting]:
    for name, about in type(section).model_fields.items():
        value = getattr(section, name)
        where = (*path, name)
        if isinstance(value, BaseModel):
            yield from _section(value, where, loaded)
        elif isinstance(value, dict) and value and all(isinstance(item, BaseModel) for item in value.values()):
            for key, item in value.items():
                yield from _section(item, (*where, key), loaded)
        elif isinstance(value, tuple) and value and all(isinstance(item, BaseModel) for item in value):
            for index, item in enumerate(value):
                yield from _section(item, (*where, index), loaded)
        elif value is None and name not in section.model_fields_set:
            continue  # absent, and its absence is explained by what stands in its place
        else:
            given = name in section.model_fields_set
            yield Setting(
                dotted(where), shown(value), _origin(where, loaded) if given else DEFAULT, about.description or ""
            )


def _effective(loaded: LoadedConfig, model: str) -> Iterator[Setting]:
    """What the defaults mean for this model."""
    config = loaded.config
    own = config.models[model]
    for name, value in (("false_alarms", config.false_alarms_of(model)), ("tolerance", config.defaults.tolerance)):
        if getattr(own, name) is None:
            given = name in config.defaults.model_fields_set
            origin = _origin(("defaults", name), loaded) if given else DEFAULT
            yield Setting(f"models.{dotted((model,))}.{name}", shown(value), origin, "from defaults")
    if own.window is None:
        window = config.defaults.window
        origin = _origin(("defaults", "window"), loaded) if "window" in config.defaults.model_fields_set else DEFAULT
        yield Setting(
            f"models.{dotted((model,))}.window",
            "auto" if window.every is None else str(window.every),
            origin,
            "from defaults",
        )


def _from_reference(loaded: LoadedConfig, model: str, profile: ReferenceProfile) -> Iterator[Setting]:
    origin = f"reference {profile.id[:19]}"
    base = ("models", model)
    windows = profile.windows
    if windows.count:
        meaning = f"{windows.count} windows of {windows.size_min} to {windows.size_max} events"
        yield Setting(dotted((*base, "window", "every")), str(Duration(windows.every_ms)), origin, meaning)
    given = loaded.config.models[model].targets
    settings = monitor_settings(loaded.config).models[model]
    tolerances = {each.name: each for each in taken(settings, profile)} if profile.complete else {}
    for target in profile.targets:
        path = (*base, "targets", target.name)
        own = given.get(target.name)
        binning = target.binning
        yield Setting(dotted((*path, "kind")), binning.kind.value, origin, target.role)
        if binning.kind.value == "numeric" and (own is None or own.range is None):
            yield Setting(
                dotted((*path, "range")),
                f"[{binning.low:g}, {binning.high:g}]",
                origin,
                "outside counts as out of range",
            )
        inherited = own is None or own.tolerance is None
        tolerance = tolerances.get(target.name)
        if tolerance is not None and (inherited or tolerance.auto):
            yield Setting(dotted((*path, "tolerance")), *_tolerance(tolerance, origin, inherited=inherited))


def _tolerance(taken: Taken, reference: str, *, inherited: bool) -> tuple[str, str, str]:
    """(value in force, origin, meaning)."""
    unit = "reference standard deviations"
    if taken.widened and taken.effects is not None:
        blocks = f"blocks of {Duration(taken.effects.length_ms)}"
        absent = f"; of missing and invalid values {taken.absent:g}" if taken.absent != taken.values else ""
        return f"{taken.values:g}", reference, f"{unit}; widened from {taken.least:g} to hold what {blocks} do{absent}"
    return f"{taken.least:g}", "as the model" if inherited else "auto", unit


def shown(value: Any) -> str:
    """A value as it would be written in the file."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return str(value)
