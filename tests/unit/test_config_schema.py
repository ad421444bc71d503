"""The JSON Schema says the same as the models, and every key is read by something."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

import stream
from stream import config as config_module
from stream import config_told, config_topics
from stream.config_loader import load_config
from stream.config_schema import json_schema

GOOD = """\
kafka: {bootstrap_servers: [a:1, b:2], security: {protocol: SSL, ca_file: ca.pem}}
topics: {predictions: {name: p, mapping: native, lateness: 5s}}
defaults: {window: auto, false_alarms: 1 per 30d}
monitors: 4
models:
  fraud:
    reference: {first: 5000}
    window: {every: 5m, min_events: 100}
    segments: {country: [DE, 1, true]}
    targets: {amount: {range: [0, 5], kind: numeric}}
    detectors: [{type: psi, threshold: 0.2}]
"""
BAD = {
    "unknown key": ("monitors: 4", "monitor: 4"),
    "wrong type": ("monitors: 4", "monitors: four"),
    "below limit": ("first: 5000", "first: 5"),
    "no unit": ("lateness: 5s", "lateness: 5"),
    "unknown word": ("type: psi", "type: psy"),
    "short range": ("[0, 5]", "[0]"),
    "no reference": ("reference: {first: 5000}", "owner: me"),
}


def sections() -> list[type[BaseModel]]:
    base = config_module.Section
    return [
        value
        for module in (config_module, config_topics, config_told)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
    ]


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_schema_is_one_and_accepts_what_the_models_accept(tmp_path: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    (tmp_path / "good.yaml").write_text(GOOD)
    load_config(tmp_path / "good.yaml")
    jsonschema.validate(plain(GOOD), schema)
    jsonschema.validate(
        plain(GOOD.replace("{name: p, mapping: native, lateness: 5s}", "p").replace("[a:1, b:2]", "a:1")), schema
    )


@pytest.mark.parametrize("name", BAD)
def test_the_schema_refuses_what_the_models_refuse(tmp_path: Path, name: str) -> None:
    text = GOOD.replace(*BAD[name])
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(Exception, match=r"DL-C"):
        load_config(tmp_path / "bad.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain(text), json_schema())


def test_every_key_has_one_description_and_its_default_as_one_would_write_it() -> None:
    for section in sections():
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
    properties = json_schema()["properties"]
    assert properties["resolution"]["default"] == "1m"
    assert properties["memory_budget"]["default"] == "1GB"
    assert "title" not in properties["resolution"]


def test_every_key_is_read_by_some_code_outside_the_configuration() -> None:
    """No key without an effect: every field is an attribute access in a module that is not about the file itself."""
    folder = Path(stream.__file__).parent
    about = {
        "config",
        "config_loader",
        "config_schema",
        "config_errors",
        "config_checks",
        "explain",
        "quantities",
        "yaml_places",
    }
    read: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.stem in about:
            continue
        read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    mapped = set(config_topics.MappingSettings.model_fields)  # read as a whole: Mapping(**settings)
    through = {
        "defaults": "tolerance_of",
        "tolerance": "tolerance_of",
        "false_alarms": "false_alarms_of",
        "window": "window_of",
        "season": "season_of",
    }
    unread = {
        f"{section.__name__}.{name}"
        for section in sections()
        for name in section.model_fields
        if name not in read and name not in mapped and through.get(name) not in read
    }
    assert unread == set()
