from __future__ import annotations

import json

import pytest

from stream.columns import Tag
from stream.decode import Layout, Mapping, MappingError, decode, records_from_lines
from stream.mapping import NATIVE, cell_keys, pointer, split

OTHER = Mapping(
    prediction_id="meta.id",
    model="=churn",
    version="meta.build",
    timestamp="meta.at",
    timestamp_unit="ms",
    features="input.values",
    prediction="output.label",
    scores={"score": "output.probability", "margin": "output.margin"},
    segments="input.values",
)


def test_paths_become_keys() -> None:
    assert cell_keys(NATIVE, "features.a.b") == ("features", "a.b")
    assert cell_keys(NATIVE, "score") == ("score",)
    assert cell_keys(OTHER, "features.a.b") == ("input", "values", "a.b")
    assert cell_keys(OTHER, "segments.country") == ("input", "values", "country")
    assert cell_keys(OTHER, "margin") == ("output", "margin")
    assert cell_keys(OTHER, "prediction") == ("output", "label")
    assert cell_keys(Mapping(features=""), "features.x") == ("x",)


def test_another_shape_of_event() -> None:
    layout = Layout.compile(OTHER, ["churn"], ["features.country", "segments.country", "prediction", "score", "margin"])
    event = {
        "meta": {"id": "a", "build": 7, "at": 1_763_806_503_120},
        "input": {"values": {"country": "DE"}},
        "output": {"label": "stay", "probability": 0.25},
    }
    columns = decode(records_from_lines([json.dumps(event).encode()]), layout)
    assert columns.event_time_ms.tolist() == [1_763_806_503_120]
    assert columns.tag.tolist() == [[Tag.TEXT, Tag.TEXT, Tag.TEXT, Tag.NUMBER, Tag.MISSING]]
    assert columns.cell[0, 0] == columns.cell[0, 1]
    assert list(columns.version_names.values()) == ["7"]
    assert columns.model.tolist() == [0]


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp_unit": "minutes"},
        {"prediction_id": "=7"},
        {"timestamp": "=2026"},
        {"features": "=x"},
        {"prediction": "$record"},
        {"scores": {"prediction": "p"}},
        {"scores": {"score": ""}},
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(changes: dict) -> None:
    with pytest.raises(MappingError):
        Mapping(**changes)


@pytest.mark.parametrize("path", ["amount", "features", "features.", "segments.", "", "scores.margin"])
def test_an_unknown_path_is_refused(path: str) -> None:
    with pytest.raises(MappingError, match="no feature"):
        Layout.compile(NATIVE, [], [path])


def test_names_are_given_once() -> None:
    with pytest.raises(MappingError, match="model is named twice"):
        Layout.compile(NATIVE, ["a", "a"], [])
    with pytest.raises(MappingError, match="path is named twice"):
        Layout.compile(NATIVE, [], ["score", "score"])
    with pytest.raises(MappingError, match="empty key"):
        split("a..b")
    with pytest.raises(MappingError, match="needs a path"):
        Layout.compile(Mapping(model=""), [], [])


def test_pointers_are_rfc_6901() -> None:
    assert pointer(("a/b", "c~d")) == "/a~1b/c~0d"
    assert pointer(()) == ""
