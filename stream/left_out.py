"""Columns of a reference file that cannot be watched, for no row that chooses their bins has a valid value; and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detectors.column_values import VALID, read_column
from detectors.reference import ReferenceProfile
from detectors.reference_build import choosing_rows, left_out
from stream.config import Config, Model
from stream.config_errors import Severity
from stream.tables import ReferenceRows
from stream.yaml_places import Key, dotted


def without_bins(rows: ReferenceRows) -> tuple[list[str], int]:
    """Names of the targets that a reference of these rows will leave out, and how many rows choose bins (0: too few to say)."""
    first = choosing_rows(rows.rows, rows.time_ms)
    found = []
    for name, values in rows.columns.items():
        column = read_column(name, values[first], rows.roles[name], rows.kinds.get(name))
        if len(first) and not np.any(column.state == VALID):
            found.append(name)
    return found, len(first)


def findings(
    settings: Model, model: str, rows: ReferenceRows, names: list[str], count: int
) -> Iterator[tuple[Key, str, str, Severity]]:
    """Path, what was read, what was expected, of each of `names`: an error where the configuration asks for it by name, else a
    warning, for the worker runs without; or one error where nothing is left.
    """
    file: Key = ("models", model, "reference", "file")
    which = "chosen by a hash of their number" if rows.time_ms is None else "the first by time"
    if len(names) == len(rows.columns):
        read = f"no column has a valid value in the {count:,} rows that choose the bins ({which})"
        yield file, read, "a file with values there", Severity.ERROR
        return
    for name in names:
        asked: list[Key] = [("models", model, "targets", name)] if name in settings.targets else []
        asked += [
            ("models", model, "detectors", index, "targets", place)
            for index, detector in enumerate(settings.detectors)
            for place, target in enumerate(detector.targets)
            if target == name
        ]
        read = f"{name} will not be watched, for none of the {count:,} rows that choose its bins ({which}) has a valid value"
        for path in asked or [file]:
            yield path, read, way_out(model, name), Severity.ERROR if asked else Severity.WARNING


def way_out(model: str, name: str) -> str:
    """What to do about one of them."""
    setting = dotted(("models", model, "targets", name, "watch"))
    return f"{setting}: false, which leaves it out on purpose, or a file with values of it there"


def not_watched(config: Config, profile: ReferenceProfile) -> list[str]:
    """A sentence for each column that the reference lacks for this reason, unless the configuration leaves it out on purpose."""
    own = config.models[profile.model].targets if profile.model in config.models else {}
    return [
        f"{note}; {dotted(('models', profile.model, 'targets', name, 'watch'))}: false leaves it out on purpose"
        for name, note in left_out(profile).items()
        if name not in own or own[name].watch
    ]
