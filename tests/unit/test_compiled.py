"""F21: a cache folder that cannot be found or written costs the cache, not the function."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from detectors.compiled import UNCACHED
from stream.kernels.timestamp import day_number as kernel
assert kernel(1970, 1, 2) - kernel(1970, 1, 1) == 1
print(len(UNCACHED), UNCACHED[:1])
"""


@pytest.mark.parametrize(
    ("limit", "settings", "told"),
    [
        pytest.param(-1, {}, "0 []", id="F21-writable"),
        pytest.param(0, {}, "File too large", id="F21-full"),
        pytest.param(
            -1, {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}, "no locator available", id="F21-no-permission"
        ),
    ],
)
def test_a_disk_that_refuses_the_cache_is_noted(
    limit: int, settings: dict[str, str], told: str, tmp_path: Path
) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | settings
    command = [sys.executable, "-c", PROGRAM, str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert told in done.stdout
