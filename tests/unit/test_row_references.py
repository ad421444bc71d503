"""What a reference keeps of rows and arrays for multivariate detectors, and what it is told where that is too little."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from detectors.reference import ReferenceProfile, with_id
from detectors.reference_sample import ROWS_KEPT, sampled_rows
from stream.planning import PlanningError, collector_plan
from stream.preflight import build_from_file, preflight
from stream.row_series import NoRowsError
from tests.unit.test_array_series import LENGTH, MODEL, config, embeddings

ROWS = 20_000
ARRAYS = [{"type": "mmd_random_features", "targets": ["query"], "threshold": 0.1}]
FEATURES = [{"type": name, "threshold": 0.5} for name in ("pca_reconstruction", "domain_classifier")]


def written(folder: Path, every: int, *, first: int = 0, varies: bool = True) -> None:
    """A file in which every so-manieth row has an array, from the row `first` on."""
    values = embeddings(ROWS, 3) if varies else np.ones((ROWS, LENGTH))
    rows = [each if i >= first and i % every == 0 else None for i, each in enumerate(values)]
    table = {
        "query": pa.array(rows, pa.list_(pa.float64())),
        "amount": [float(i % 7) if varies else 1.0 for i in range(ROWS)],
    }
    parquet.write_table(pa.table(table), folder / "training.parquet")


@pytest.mark.parametrize(("every", "kept"), [(2, ROWS_KEPT), (40, ROWS // 40), (250, ROWS // 250)])
def test_arrays_that_few_rows_have_are_sampled_among_those(tmp_path: Path, every: int, kept: int) -> None:
    """As many as there are, up to the most; among the first 2,000 rows of the sample at .4 % there would be 8."""
    written(tmp_path, every)
    built = build_from_file(config(tmp_path, ARRAYS), MODEL)
    assert built.row_sample is not None
    arrays = built.row_sample.arrays["query"]
    assert arrays.shape == (kept, LENGTH)
    there = {tuple(row) for row in embeddings(ROWS, 3)[::every].astype(np.float32).tolist()}
    assert len({tuple(row) for row in arrays.tolist()} & there) == kept
    assert collector_plan(config(tmp_path, ARRAYS), {MODEL: built})[0].models[0].row_sums


def test_no_more_arrays_are_read_than_are_kept() -> None:
    asked: list[int] = []

    def of(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return np.zeros((len(rows), 3), np.float32)

    norms = np.where(np.arange(50_000) % 3 == 0, np.nan, np.where(np.arange(50_000) % 3 == 1, np.inf, 1.0))
    sampled_rows({"query": norms}, {"query": "feature"}, {"query": "numeric"}, "feature", {"query": of})
    assert asked == [ROWS_KEPT]


@pytest.mark.parametrize(
    ("detectors", "changes", "series", "why", "mends"),
    [
        (ARRAYS, {"every": 500}, r"mmd_random_features\(query\)", "40 rows of the reference are kept; 50 are needed",
         "where at least 50 rows have arrays of query that differ, or leave this detector out"),
        (ARRAYS, {"every": 1, "varies": False}, r"mmd_random_features\(query\)", "no numeric feature of the reference varies",
         "have arrays of query that differ"),
        (FEATURES, {"every": 1, "varies": False}, "domain_classifier", "no numeric feature of the reference varies",
         "where at least 50 rows have numeric features that differ, or leave this detector out"),
        (FEATURES[:1], {"every": 1, "varies": False}, "pca_reconstruction", "no numeric feature of the reference varies", "that differ"),
    ],
)  # fmt: skip
def test_rows_that_show_nothing_are_refused_when_the_reference_is_built(
    tmp_path: Path, detectors: list[dict[str, Any]], changes: dict[str, Any], series: str, why: str, mends: str
) -> None:
    written(tmp_path, **changes)
    with pytest.raises(
        NoRowsError, match=rf"^models.{MODEL}: {series}: reference sha256:\w+: {why}; build it .*{mends}"
    ):
        build_from_file(config(tmp_path, detectors), MODEL)


@pytest.mark.parametrize(("every", "found"), [(500, 1), (400, 0)])
def test_check_config_says_that_a_file_has_too_few_arrays(tmp_path: Path, every: int, found: int) -> None:
    written(tmp_path, every)
    for detectors, few in ((ARRAYS, found), (FEATURES, 0)):  # the norm alone needs no so many
        path = tmp_path / "driftline.yaml"
        own = config(tmp_path, detectors).model_dump(mode="json", exclude_unset=True)
        path.write_text(json.dumps(own, default=str))
        problems = preflight(path, partitions=2, events_per_s=100).problems
        assert [(each.code, each.path) for each in problems] == [
            ("DL-C023", f"models.{MODEL}.targets.query.dimension")
        ] * few
        assert all(each.read.startswith("40 rows of the file have an array of 16 numbers") for each in problems)


def test_a_stored_reference_that_shows_nothing_is_refused_by_name(tmp_path: Path) -> None:
    """Promoted by another version, or built for other detectors of the same arrays."""
    written(tmp_path, 2)
    built = build_from_file(config(tmp_path, ARRAYS), MODEL)
    assert built.row_sample is not None

    def refused(profile: ReferenceProfile) -> str:
        with pytest.raises(PlanningError) as error:
            collector_plan(config(tmp_path, ARRAYS), {MODEL: profile})
        return str(error.value)

    few = replace(built.row_sample, arrays={"query": built.row_sample.arrays["query"][:10]})
    said = refused(with_id(replace(built, row_sample=few)))
    assert re.match(
        rf"models.{MODEL}: mmd_random_features\(query\): reference sha256:\w+: 10 rows .*arrays of query", said
    )
    without = replace(built, targets=tuple(each for each in built.targets if each.name != "query"))
    assert "has no target query, or it is not watched; build it anew" in refused(with_id(without))
