"""State that released versions have written loads into today's code and says the same.

A fixture is made with `python -m load_tests.state_fixture` when a version is released. A failing one is never made anew:
the code must go on reading it, or refuse it by name after two minor versions.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from load_tests.state_summary import summaries

FOLDER = Path(__file__).parents[1] / "data" / "state"
VERSIONS = sorted(path.name for path in FOLDER.iterdir())
_path = Path(__file__).parents[1] / "integration" / "worker_bench.py"


def read(name: str, tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(FOLDER / name, tmp_path / name)
    spec = importlib.util.spec_from_file_location("worker_bench", _path)
    assert spec is not None
    assert spec.loader is not None
    bench: Any = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("worker_bench", bench)
    spec.loader.exec_module(bench)
    bench.reference_file(tmp_path / name / "train.parquet", rows=100)  # only has to be there
    return summaries(tmp_path / name)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_released_states_log_says_what_it_said(name: str, tmp_path: Path) -> None:
    expected = json.loads((FOLDER / name / "summary.json").read_text())
    differences = list(missing(expected, json.loads(json.dumps(read(name, tmp_path)))))
    assert not differences


def missing(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Where `found` says something else; a later version may say more."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            yield from missing(value, found.get(key), f"{at}/{key}")
    elif expected != found:
        yield f"{at}: {expected!r} was written, {found!r} is read"


def test_this_version_has_a_fixture_with_all_that_a_state_can_hold() -> None:
    assert version("driftline") in VERSIONS
    found = json.loads((FOLDER / version("driftline") / "summary.json").read_text())
    collectors = [body for name, body in found.items() if name.startswith("collector")]
    monitors = [body for name, body in found.items() if name.startswith("monitor")]
    assert any(body["held outputs"] for body in collectors)
    assert any(body["journalled again"] for body in collectors)
    assert all(body["accounting"]["consumed"] for body in collectors)
    assert any(body["models"] for body in monitors)
