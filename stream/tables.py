"""Rows from Parquet or CSV: columns for a reference, events for a replay. The only file that imports pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from detectors.reference_sample import ArraysOf
from stream.config import Config, Model, Reference
from stream.config_errors import unknown_name
from stream.decode_arrays import norms
from stream.mapping import PREDICTION
from stream.plan import Role, share_name

if TYPE_CHECKING:
    import pyarrow as pa

ENVELOPE = ("prediction_id", "model", "version", "timestamp")
"""Columns of that name are no features, because an event has them beside its features."""
BATCH_ROWS = 8_192
ARRAY_ROWS = 1_024  # at a time: 33 MB of the longest arrays
NESTED = ("features", "segments")
_TEXTS = ("prediction_id", "model", "version")


class TableError(ValueError):
    """A file that cannot be used as it is; the message says which column and what to do."""


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """What a reference is built from, by target name.

    columns      float64 (NaN = missing), bool, or object (text, None = missing), all n rows
    roles, kinds, ranges     for those targets that have one
    arrays       of targets that are arrays, whose norms are in `columns` (infinite = invalid): the valid ones of these rows, F32
    time_ms      int64[n], or None: rows without time
    """

    columns: dict[str, NDArray[Any]]
    roles: dict[str, str]
    kinds: dict[str, str]
    ranges: dict[str, tuple[float, float]]
    time_ms: NDArray[np.int64] | None
    rows: int
    arrays: dict[str, ArraysOf] = field(default_factory=dict)


def read_table(path: Path) -> pa.Table:
    """The whole file; the ending says what it is. Raises TableError."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not path.is_file():
        raise TableError(f"{path} is not there")
    try:
        if path.suffix.lower() in {".csv", ".tsv"}:
            options = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            return csv.read_csv(path, parse_options=options)
        if path.suffix.lower() in {".parquet", ".pq"}:
            return parquet.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise TableError(f"{path}: {str(error).splitlines()[0][:200]}") from None
    raise TableError(f"{path}: {path.suffix or 'no ending'} is not known; known: .parquet, .pq, .csv, .tsv")


def reference_rows(config: Config, model: str, table: pa.Table) -> ReferenceRows:
    """Columns of the table as targets of `model`. Raises TableError for a column that is missing or cannot be watched."""
    settings = config.models[model]
    named = settings.reference
    known = table.column_names
    if len(set(known)) != len(known):
        raise TableError("a column's name stands twice")
    for key in ("time", "label", "prediction", "score"):
        name = getattr(named, key)
        if name is not None and name not in known:
            raise TableError(f"models.{model}.reference.{key}: there is no column {name}.  {unknown_name(name, known)}")
    time_column = named.time or ("timestamp" if "timestamp" in known else None)
    outputs = output_columns(config, named, known)
    skipped = {time_column, named.label, *ENVELOPE, *named.ignore, *map(_segment_column, settings.segments)}
    rows = ReferenceRows({}, {}, {}, {}, _time_ms(table, time_column), table.num_rows)
    for column in known:
        if column in skipped:
            continue
        role, target = outputs.get(column, (Role.FEATURE, column))
        own = settings.targets.get(target)
        if own is not None and not own.watch:
            continue
        if target in rows.columns:
            raise TableError(f"models.{model}: a feature and the {role.value} are both called {target}; rename one")
        if own is not None and own.dimension is not None:
            arrays = _arrays(table, column, own.dimension)
            rows.columns[target], rows.kinds[target] = _norms(arrays, own.dimension, column), "numeric"
            rows.arrays[target] = partial(_valid_arrays, arrays, own.dimension)
        else:
            rows.columns[target] = column_values(table, column)
        rows.roles[target] = role.value
        if own is not None and own.kind is not None:
            rows.kinds[target] = own.kind
        if own is not None and own.range is not None:
            rows.ranges[target] = own.range
    _add_shares(settings, table, rows)
    if not rows.columns:
        raise TableError(f"models.{model}: the file has no column to watch")
    return rows


def output_columns(config: Config, named: Reference, known: Sequence[str]) -> dict[str, tuple[Role, str]]:
    """Column -> role and target name, of the prediction and the scores that a file with the columns `known` has."""
    scores = list(config.topics.predictions.mapping.scores)
    outputs = {name: (Role.SCORE, name) for name in scores if name in known}
    prediction = named.prediction or (PREDICTION if PREDICTION in known else None)
    if prediction is not None:
        outputs[prediction] = (Role.PREDICTION, PREDICTION)
    if named.score is not None and scores:
        outputs.pop(scores[0], None)
        outputs[named.score] = (Role.SCORE, scores[0])
    return outputs


def _segment_column(key: str) -> str:
    return f"{NESTED[1]}.{key}"


def segment_column(key: str, known: Sequence[str]) -> str | None:
    """The column that has the values of a segment key: "segments.KEY", else KEY."""
    return next((column for column in (_segment_column(key), key) if column in known), None)


def _add_shares(settings: Model, table: pa.Table, rows: ReferenceRows) -> None:
    """A target for each segment key that the file has a column of: "segments.KEY", or KEY unless that is a watched feature,
    whose shares are watched already.
    """
    for key in settings.segments:
        name, own = share_name(key), settings.targets.get(share_name(key))
        column = segment_column(key, table.column_names)
        if column is None or column in rows.columns or (own is not None and not own.watch):
            continue
        if name in rows.columns:
            raise TableError(
                f"a feature is called {name}, which is the name of the shares of the segment {key}; rename one"
            )
        rows.columns[name] = column_values(table, column)
        rows.roles[name], rows.kinds[name] = Role.SHARE.value, "categorical"


def column_values(table: pa.Table, name: str) -> NDArray[Any]:
    """One column as numpy: numbers as float64 with NaN for null, bool as bool or object, text as object with None.

    Raises TableError.
    """
    import pyarrow as pa
    from pyarrow import types

    column = table.column(name)
    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    raise TableError(
        f"the column {name} is of type {kind}: no number, text or bool. Name it in reference.ignore, or, if it is "
        f"lists of numbers, set targets.{name}.dimension"
    )


def _arrays(table: pa.Table, name: str, length: int) -> pa.ChunkedArray:
    """A column of lists of numbers, of any length and of any width. Raises TableError."""
    from pyarrow import types

    column = table.column(name)
    kind = column.type
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if lists else kind
    if not lists or not (types.is_integer(inner) or types.is_floating(inner) or types.is_decimal(inner)):
        raise TableError(
            f"the column {name} is of type {kind}: no lists of numbers, and targets.{name}.dimension is {length}"
        )
    return column


def _blocks(column: pa.ChunkedArray, length: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Rows of the column and their lists F64[k, length], NaN for null in them: those that have as many values."""
    import pyarrow as pa
    from pyarrow import compute

    first = 0
    for chunk in column.chunks:
        for begin in range(0, len(chunk), ARRAY_ROWS):
            part = chunk.slice(begin, ARRAY_ROWS)
            chosen = np.flatnonzero(
                compute.equal(compute.list_value_length(part), length).fill_null(False).to_numpy(zero_copy_only=False)
            )
            flat = part.take(pa.array(chosen)).flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
            yield first + begin + chosen, np.asarray(flat, np.float64).reshape(-1, length)
        first += len(chunk)


def _norms(column: pa.ChunkedArray, length: int, name: str) -> NDArray[np.float64]:
    """F64[n], as the decoder says of the same arrays: NaN = missing, infinite = invalid. Raises TableError where none is valid."""
    from pyarrow import compute

    found = np.where(compute.is_null(column).to_numpy(zero_copy_only=False), np.nan, np.inf)
    for rows, values in _blocks(column, length):
        found[rows] = np.nan_to_num(norms(values), nan=np.inf)
    if len(found) and not np.isfinite(found).any():
        raise TableError(f"the column {name} has no list of {length} finite numbers (targets.{name}.dimension)")
    return found


def _valid_arrays(column: pa.ChunkedArray, length: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """F32[k, length] of those of `rows` that have a valid array, in their order."""
    import pyarrow as pa

    # of single precision, as embeddings are made, and half as large
    with np.errstate(over="ignore"):
        parts = [values.astype(np.float32) for _, values in _blocks(column.take(pa.array(rows)), length)]
    values = np.concatenate([np.empty((0, length), np.float32), *parts])
    found: NDArray[np.float32] = values[np.isfinite(values).all(axis=1)]
    return found


def _time_ms(table: pa.Table, name: str | None) -> NDArray[np.int64] | None:
    """Event times of the rows; a numeric column is read as milliseconds. None where there is no such column."""
    import pyarrow as pa
    from pyarrow import types

    if name is None:
        return None
    column = table.column(name)
    if column.null_count:
        raise TableError(f"the time column {name} has {column.null_count} rows without time")
    kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        try:
            column = column.cast(pa.timestamp("ms", "UTC"), safe=False)
        except pa.ArrowInvalid as error:
            reason = str(error).split("\n", 1)[0][:200]
            raise TableError(f"the time column {name} cannot be read: {reason}") from None
    elif types.is_date(kind) or types.is_timestamp(kind):
        column = column.cast(pa.timestamp("ms"), safe=False)
    elif not types.is_integer(kind):
        raise TableError(f"the time column {name} is of type {kind}: neither a timestamp nor whole milliseconds")
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def table_events(config: Config, path: Path) -> Iterator[bytes]:
    """A Parquet or CSV file as native events, one a row, in the order of the file. Raises TableError.

    Columns prediction_id (else the number of the row), model (else the only configured one), version and timestamp make
    the envelope; prediction and scores are found as in a reference file. "features" and "segments" may be nested, a column
    "segments.<key>" is a segment, and what is left is a feature. A configured segment key that is a feature is both.
    """
    table = read_table(path)
    only = next(iter(config.models)) if len(config.models) == 1 else None
    if "model" not in table.column_names and only is None:
        raise TableError(f"{path}: with several models configured, a column `model` must say whose prediction a row is")
    reference = config.models[only].reference if only is not None else None
    renamed = _event_names(config, reference)
    ignored = {*reference.ignore, reference.label} if reference is not None else set()
    keys = {key for model in config.models.values() for key in model.segments}
    outputs = {*ENVELOPE, PREDICTION, *config.topics.predictions.mapping.scores}
    number = 0
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            event: dict[str, Any] = {"prediction_id": f"row-{number}", "model": only}
            features: dict[str, Any] = {}
            segments: dict[str, Any] = {}
            apart: dict[str, Any] = {}
            for column, value in row.items():
                name = renamed.get(column, column)
                if name in outputs:
                    event[name] = str(value) if name in _TEXTS and value is not None else value
                elif name in NESTED:
                    (features if name == NESTED[0] else segments).update(value or {})
                elif name.startswith("segments."):
                    segments[name.removeprefix("segments.")] = value
                elif column not in ignored:
                    features[name] = value
                else:
                    apart[name] = value
            for named in (apart, features):
                segments = {key: named[key] for key in keys if key in named} | segments
            event["features"], event["segments"] = features, segments
            number += 1
            yield orjson.dumps(event, option=orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC, default=str)


def _event_names(config: Config, reference: Reference | None) -> dict[str, str]:
    """Columns that the configuration names for the reference, and what they are in an event."""
    if reference is None:
        return {}
    scores = list(config.topics.predictions.mapping.scores)
    named = {reference.time: "timestamp", reference.prediction: PREDICTION}
    if scores:
        named[reference.score] = scores[0]
    return {column: name for column, name in named.items() if column is not None}
