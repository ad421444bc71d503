"""Everything that is registered, one by one: what it says of itself, what it may be told, and what one more costs."""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import jsonschema
import pytest

import detectors
from detectors.known_differences import DIFFERENCES
from detectors.parameters import Base, choice, number, read, schema, whole
from detectors.registry import SECTIONS, BadEntry, Entry, Family, sections
from detectors.registry import card as card_of
from detectors.verdict import BadSettings

FUNCTIONS = {
    Family.SEQUENTIAL: ("prepare", "start", "update", "describe", "state_to_sections", "state_from_sections"),
    Family.DISTANCE: ("prepare",),
    Family.TEST: ("prepare",),
    Family.ONLINE: ("start", "update", "state_to_sections", "state_from_sections"),
    Family.MULTIVARIATE: ("prepare", "width", "sample_rows", "add", "measure"),
}
HELPERS = {  # what several of a folder share
    "distance": {"__init__", "bins", "contingency", "cumulative", "ragged"},
    "online": {"__init__", "series"},
    "multivariate": {"__init__", "rows"},
}
CONFIGURED_HERE = [name for name in detectors.REGISTRY if issubclass(detectors.card(name).parameters, Base)]
FIELDS = [
    pytest.param(name, field, id=f"{name}.{field.name}")
    for name in CONFIGURED_HERE
    for field in dataclasses.fields(detectors.card(name).parameters)
]


@pytest.mark.parametrize("name", detectors.REGISTRY)
def test_every_registered_detector_has_the_functions_of_its_family(name: str) -> None:
    module = detectors.load(name)
    assert all(callable(getattr(module, function)) for function in FUNCTIONS[detectors.REGISTRY[name].family])


@pytest.mark.parametrize("name", detectors.REGISTRY)
def test_every_registered_detector_says_what_holds_what_it_costs_and_where_it_is_from(name: str) -> None:
    card = detectors.card(name)
    assert card.title.endswith(".")
    for text in (card.guarantee, card.cost, card.source):
        assert len(text) > 10
        assert not any(f"{section}  " in text for section in SECTIONS)


@pytest.mark.parametrize("name", detectors.REGISTRY)
def test_parameters_are_frozen(name: str) -> None:
    parameters = detectors.card(name).parameters
    assert dataclasses.is_dataclass(parameters)
    assert parameters.__dataclass_params__.frozen


@pytest.mark.parametrize("folder", HELPERS)
def test_the_registry_is_complete(folder: str) -> None:
    registered = {
        entry.module.rpartition(".")[2]
        for entry in detectors.REGISTRY.values()
        if entry.module.startswith(f"detectors.{folder}.")
    }
    files = {path.stem for path in (Path(detectors.__file__).parent / folder).glob("*.py")}
    assert registered == files - HELPERS[folder]
    for name, entry in detectors.REGISTRY.items():
        assert entry.family is Family.SEQUENTIAL or entry.module.endswith(f".{name}")


def test_only_what_every_windows_record_holds_can_have_a_threshold() -> None:
    assert detectors.RECORDED == ("psi", "kolmogorov_smirnov", "jensen_shannon")


# ---- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGURED_HERE)
def test_defaults_are_valid_and_the_schema_takes_them(name: str) -> None:
    card = detectors.card(name)
    defaults = dataclasses.asdict(read(card.parameters, {}))
    assert read(card.parameters, defaults) == card.parameters()
    jsonschema.Draft202012Validator.check_schema(card.schema())
    jsonschema.validate(defaults, card.schema())


@pytest.mark.parametrize("name", CONFIGURED_HERE)
def test_an_unknown_parameter_is_refused_by_name_and_by_the_schema(name: str) -> None:
    card = detectors.card(name)
    with pytest.raises(BadSettings, match="'colour' is no parameter"):
        read(card.parameters, {"colour": 1})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"colour": 1}, card.schema())


def wrong_values(limits) -> list[object]:
    if "among" in limits:
        return ["neither", 1, None, math.nan]
    values: list[object] = [math.nan, math.inf, -math.inf, True, "1", None]
    low, high = limits["low"], limits["high"]
    if limits["type"] == "integer":
        return [*values, low - 1, high + 1, 1.5]
    return [*values, low - 1e-6 * max(1.0, abs(low)), high + 1e-6 * max(1.0, abs(high))]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_what_is_not_finite_or_out_of_range_is_refused_by_name(name: str, field) -> None:
    parameters = detectors.card(name).parameters
    where = parameters.__module__.rpartition(".")[2]
    for value in wrong_values(field.metadata):
        with pytest.raises(BadSettings, match=rf"^{where}\.{field.name}: "):
            read(parameters, {field.name: value})


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_the_schema_refuses_what_the_parameters_refuse(name: str, field) -> None:
    card = detectors.card(name)
    for value in wrong_values(field.metadata):
        if isinstance(value, float) and not math.isfinite(value):
            continue  # JSON has no such numbers
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({field.name: value}, card.schema())
    limits = field.metadata
    for value in limits.get("among") or (limits["low"], limits["high"]):
        jsonschema.validate({field.name: value}, card.schema())
        assert getattr(read(card.parameters, {field.name: value}), field.name) == value


def test_every_kind_of_parameter() -> None:
    @dataclasses.dataclass(frozen=True)
    class Some(Base):
        share: float = number(0.5, 0.0, 1.0, "a share")
        rows: int = whole(10, 1, 99, "rows")
        unit: str = choice("value", ("value", "std"), "unit")

    assert read(Some, {"share": 1, "rows": 99}) == Some(1, 99, "value")
    assert schema(Some)["properties"]["rows"] == {
        "type": "integer", "default": 10, "description": "rows", "minimum": 1, "maximum": 99,
    }  # fmt: skip
    with pytest.raises(BadSettings, match="unit: 'mile' is none of value, std"):
        read(Some, {"unit": "mile"})


# ---- known differences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: row.ours)
def test_every_known_difference_has_a_test_that_shows_it(row) -> None:
    assert row.ours in detectors.REGISTRY
    file, _, test = row.shown_by.partition("::")
    tree = ast.parse((Path(__file__).parents[1] / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# ---- one more -------------------------------------------------------------------------------------------------------

NEW = '''"""Largest ratio of two shares.

Reads      all bins
Guarantee  none, it is an example
Cost       O(bins)
Source     this test
"""
from dataclasses import dataclass
import numpy as np
from detectors.distance.bins import Traits
from detectors.distance.ragged import largest, shares
from detectors.parameters import Base, number

TRAITS = Traits(symmetric=False, upper=np.inf)


@dataclass(frozen=True)
class Parameters(Base):
    extra: float = number(1.0, 0.1, 9.0, "added to every count")


def prepare(reference, parameters):
    p = shares(reference.counts + parameters.extra, reference.start)
    return lambda window: largest(shares(window.counts + parameters.extra, reference.start) / p, reference.start)
'''


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One new file and one line of the registry, and nothing else."""
    (tmp_path / "largest_ratio.py").write_text(NEW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(detectors.REGISTRY, "largest_ratio", Entry(Family.DISTANCE, "largest_ratio"))
    return "largest_ratio"


def test_one_more_is_one_file_and_one_line(one_more: str) -> None:
    import numpy as np

    from detectors.distance import ReferenceBins, WindowBins, prepared_distance
    from stream.doc_tables import catalogue, rewritten
    from stream.doc_tables import detectors as table

    try:
        nothing = np.full(1, np.nan)
        reference = ReferenceBins(
            np.array([0, 2]), np.array([9.0, 1.0]), np.zeros(2, bool), np.zeros(0), nothing, nothing, nothing
        )
        measure = prepared_distance(one_more, reference, {"extra": 1})
        window = WindowBins(np.array([5, 5]), nothing, nothing)
        assert measure(window).tolist() == [pytest.approx((6 / 12) / (2 / 12))]
        with pytest.raises(BadSettings, match=r"largest_ratio\.extra: nan is not finite"):
            prepared_distance(one_more, reference, {"extra": math.nan})
        assert detectors.card(one_more).schema()["properties"]["extra"]["maximum"] == 9.0
        assert "| `largest_ratio` | distance | all bins | by name | outside | Largest ratio of two shares. |" in table()
        assert "| `largest_ratio` | none, it is an example | O(bins) | `extra` = 1.0 (0.1 to 9)" in catalogue()
        readme = (Path(detectors.__file__).parents[1] / "README.md").read_text()
        assert rewritten(readme) != readme
    finally:
        sys.modules.pop(one_more, None)


WHOLE_WAY = """
import sys
from pathlib import Path
import detectors
from detectors.registry import Entry, Family, Reads
detectors.REGISTRY["largest_ratio"] = Entry(Family.DISTANCE, "largest_ratio")
detectors.REGISTRY["mine"] = Entry(Family.ONLINE, "mine", Reads.NUMBERS)

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from stream.config_loader import load_config
from stream.preflight import build_from_file, preflight
from stream.replay import replay

parquet.write_table(pa.table({"x": np.arange(3000) % 7.0, "c": np.array(["a", "b"])[np.arange(3000) % 2]}), "rows.parquet")
Path("monitor.yaml").write_text(
    "kafka: {bootstrap_servers: 'localhost:9092'}\\ntopics: {predictions: p}\\nmodels:\\n  m:\\n"
    "    reference: {file: rows.parquet}\\n    window: {every: 1m, min_events: 50}\\n"
    "    detectors:\\n      - {type: largest_ratio, threshold: 1.5, parameters: {extra: 0.5}}\\n"
    "      - {type: mine, series: largest_ratio, parameters: {threshold: 3}}\\n"
)
assert preflight(Path("monitor.yaml"), partitions=1, events_per_s=10).problems == ()
config = load_config("monitor.yaml")
event = '{"prediction_id": "%d", "model": "m", "timestamp": "2026-11-22T10:%02d:00Z", "features": {"x": %d, "c": "a"}}'
events = [(event % (i, i // 60, i % 7)).encode() for i in range(600)]
found = replay(config, events, references={"m": build_from_file(config, "m")})
record = [window["targets"]["c"] for window in found.windows if "c" in window["targets"]][-1]
assert record["largest_ratio(extra=0.5)"] > record["largest_ratio"] > 1.5, record
assert record["online"]["mine(largest_ratio, threshold=3)"]["fired"], record
assert any(alert["data"]["target"] == "c" for alert in found.alerts)
print("recorded and alarmed")
"""


def test_one_more_of_each_goes_the_whole_way_from_the_file_to_the_alert(tmp_path: Path) -> None:
    """A process of its own, as what may be configured is read from the registry when the configuration is imported."""
    (tmp_path / "largest_ratio.py").write_text(NEW)
    (tmp_path / "mine.py").write_text(Path(detectors.load("cusum").__file__ or "").read_text())
    root = str(Path(detectors.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run(
        [sys.executable, "-c", WHOLE_WAY], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("recorded and alarmed\n"), done.stdout + done.stderr


@pytest.mark.parametrize("missing", SECTIONS)
def test_a_docstring_that_leaves_something_out_is_refused(missing: str) -> None:
    module = types.ModuleType(
        "incomplete", "\n".join(line for line in NEW.splitlines() if not line.startswith(missing))
    )
    with pytest.raises(BadEntry, match=f"has no {missing}"):
        card_of("incomplete", Entry(Family.DISTANCE, "incomplete"), module)


def test_a_module_without_its_parameters_is_refused() -> None:
    module = types.ModuleType("bare", NEW.split('"""')[1])
    with pytest.raises(BadEntry, match="bare has no Parameters"):
        card_of("bare", Entry(Family.DISTANCE, "bare"), module)


def test_sections_of_a_docstring() -> None:
    found = sections(
        "It is [1].\n\nmore\n\nReads  all; Output x\nGuarantee: a\n  and b\nState  c   Cost  5 us\nSource  [1] d\n\ne"
    )
    assert {name: found[name] for name in ("", "Guarantee", "Cost", "Source")} == {
        "": "It is [1].", "Guarantee": "a and b", "Cost": "5 us", "Source": "[1] d",
    }  # fmt: skip
