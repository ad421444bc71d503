from __future__ import annotations

from pathlib import Path

import pytest

import detectors
from detectors.distance import DISTANCES


@pytest.mark.parametrize("name", detectors.REGISTRY)
def test_every_registered_detector_can_be_used_and_names_its_source(name: str) -> None:
    module = detectors.load(name)
    assert module.__doc__
    assert "Source" in module.__doc__
    functions = ("prepare", "start", "update", "describe", "state_to_sections", "state_from_sections")
    wanted = functions if detectors.REGISTRY[name].kind == "sequential" else (name,)
    assert all(callable(getattr(module, function)) for function in wanted)


def test_the_registry_is_complete() -> None:
    distances = {name for name, entry in detectors.REGISTRY.items() if entry.kind == "distance"}
    assert distances == set(DISTANCES)
    files = {p.stem for p in (Path(detectors.__file__).parent / "distance").glob("*.py")} - {"__init__", "ragged"}
    assert distances == files
