"""nannyml and evidently with their defaults, in an environment of their own that the command makes: evidently
0.7.23 cannot be imported with pandas 3 (it asks for pandas.core.dtypes.common.infer_dtype_from_object).

    LEFT_OUT            what a result says where they were not asked for
    RivalEnvironment    folder -> their alarms on the same rows, through rivals_process.py in the other interpreter

Both are batch tools: they compare a chunk with the reference. Chunks have CHUNK rows, an alarm belongs to a chunk's last event.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.detection.contenders import SETTINGS, delay
from load_tests.detection.measure import QUIET_EVENTS, Size, changed, inside, pair
from load_tests.detection.streams import BY_NAME, CASES, Rows

CHUNK = 1_000
PACKAGES = ("nannyml==0.13.1", "evidently==0.7.23", "pandas==2.3.3")
LEFT_OUT = {"nannyml, evidently": "an environment of their own is needed, and --rivals FOLDER was not given"}
PROCESS = Path(__file__).with_name("rivals_process.py")
NAMES = {
    "nannyml": f"nannyml Jensen-Shannon, chunks of {CHUNK}",
    "evidently": f"evidently ValueDrift, chunks of {CHUNK}",
}
NANNYML_PAIRS, EVIDENTLY_PAIRS, EVIDENTLY_EVENTS = (
    20,
    2,
    20_000,
)  # nannyml .1 s a pair, evidently .3 s a chunk; and some 4 s of CPU to import either


class RivalEnvironment:
    """A virtual environment in `folder`, made with PACKAGES if there is none. Raises CalledProcessError."""

    def __init__(self, folder: Path) -> None:
        self.python = folder.resolve() / "bin" / "python"
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(self.python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)

    def alarms(self, stream: str, size: Size, seed: int) -> list[dict[str, Any]]:
        """One entry a pair, as measure.other_alarms; empty for pairs that they did not see."""
        chosen = BY_NAME[stream]
        events = size.events(1, chosen)
        out: list[dict[str, Any]] = [{} for _ in range(size.pairs_of(chosen))]
        for tool, most, longest in (
            ("nannyml", NANNYML_PAIRS, events),
            ("evidently", EVIDENTLY_PAIRS, EVIDENTLY_EVENTS),
        ):
            used = min(events, longest) // CHUNK * CHUNK
            drawn = []
            for number in range(min(most, size.pairs)):
                reference, live = pair(chosen, size, seed, number, size.longest(chosen))
                drawn.append((reference, inside(chosen, live.cut(0, used), SETTINGS[0].tolerance)))
            for i, found in enumerate(self._run(tool, drawn)):
                out[i][NAMES[tool]] = {"count": len(found), "events": used, "budget": SETTINGS[0].budget, "cells": 1}
        return out

    def delays(self, case: str, size: Size, seed: int) -> list[dict[str, float]]:
        """One entry a seed, as measure.delays; evidently has so few that they only show its order."""
        chosen = next(c for c in CASES if c.name == case)
        out: list[dict[str, float]] = [{} for _ in range(size.delays)]
        for tool, most in (("nannyml", NANNYML_PAIRS), ("evidently", EVIDENTLY_PAIRS)):
            drawn = [changed(chosen, size, seed, number) for number in range(min(most, size.delays))]
            for i, found in enumerate(self._run(tool, drawn, QUIET_EVENTS)):
                out[i][NAMES[tool]] = delay(np.array(found, np.int64), QUIET_EVENTS)
        return out

    def _run(self, tool: str, drawn: Sequence[tuple[Rows, Rows]], after: int = 0) -> list[list[int]]:
        """Alarming events of each pair, or the first `after` some; one process for all of them."""
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for i, (reference, live) in enumerate(drawn):
                texts = reference.value.dtype == object  # None stands for missing: an empty text over there
                values = [np.array([v or "" for v in r.value]) if texts else r.value for r in (reference, live)]
                files.append(str(Path(folder) / f"{i}.npz"))
                np.savez(files[-1], reference=values[0], live=values[1])
            done = subprocess.run(
                [str(self.python), str(PROCESS), tool, str(CHUNK), str(after), *files],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        found: list[list[int]] = json.loads(done.stdout)
        return found
