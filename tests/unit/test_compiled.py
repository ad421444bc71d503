"""F21: a cache folder that cannot be found or written costs the cache, not the function; and no cached kernel is out of date."""

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


KERNELS = {
    "constants": "import numpy as np\nSTEP, TABLE = 1, np.array([{}, 0])\n",
    "inner": """from detectors.compiled import compiled
from kernels import constants
@compiled
def step(x: int) -> int:
    return x + constants.STEP + constants.TABLE[0]
""",
    "outer": """from detectors.compiled import compiled
from kernels.inner import step
@compiled
def twice(x: int) -> int:
    return below(below(x))
@compiled
def below(x: int) -> int:
    return lowest(x)
@compiled
def lowest(x: int) -> int:
    return step(x)
print(twice(0), sum(twice.stats.cache_hits.values()))
""",
}


def test_a_constant_of_another_module_that_changes_is_compiled_in_anew_through_kernels_that_stand_below(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(value: int) -> str:
        for name, text in KERNELS.items():
            if name == "constants" or not (folder / f"{name}.py").exists():
                (folder / f"{name}.py").write_text(text.format(value) if name == "constants" else text)
        path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
        command = [sys.executable, "-c", "import kernels.outer"]
        done = subprocess.run(
            command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    assert run(10) == "22 0"
    assert run(10) == "22 1", "nothing has changed: the cache serves"
    assert run(20) == "42 0"


@pytest.mark.parametrize("part", ["memory.py", "number.py", "xxh3.py"])
def test_what_is_compiled_into_the_decoder_is_in_its_stamp(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intrinsics have no stamp of their own, and callees stand below: a change of their file is seen all the same."""
    from detectors import compiled, memory, xxh3
    from stream.kernels import number

    kernels = {
        "memory.py": (xxh3.hash64, memory), "number.py": (number.to_double, number), "xxh3.py": (xxh3.hash64, xxh3)
    }  # fmt: skip
    kernel, module = kernels[part]
    own = {its.__name__: each for each, its, _ in compiled._KERNELS[kernel.py_func.__module__]}
    before = compiled._compiled_in(kernel.py_func, own)
    content = compiled._content

    def changed(path: str) -> bytes:
        return content(path) + (b"#" if path == module.__file__ else b"")

    monkeypatch.setattr(compiled, "_content", changed)
    after = compiled._compiled_in(kernel.py_func, own)
    assert (before != after) == (part == "memory.py"), "a file of kernels has a stamp of its own; intrinsics have none"


PACKED = """
from detectors import compiled
from stream.kernels.timestamp import day_number as inner
inner(1970, 1, 2)
loaded = sum(inner.stats.cache_hits.values())
first, library = compiled.pack(), next(iter(inner.overloads.values())).library
assert library._shared_module is None
assert compiled.pack() == 0
@compiled.njit(nogil=True)
def outer(year, month, day):
    return inner(year, month, day) - inner(year, month, month)
result = outer(1970, 1, 8)
assert len(inner.overloads) == 1
again = compiled.pack()
assert compiled.pack() == 0 and library._shared_module is None
print(loaded, first > 0, result, inner(1970, 1, 8) - inner(1970, 1, 1), again > 0)
"""


def test_packed_kernels_run_and_are_linked_by_kernels_that_are_compiled_later(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(PACKED)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path}

    def run() -> str:
        command = [sys.executable, "-c", "import later"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    assert run() == "0 True 7 7 True", "compiled here, and saved"
    (tmp_path / "later.py").write_text(PACKED.replace("outer", "other"))
    assert run() == "1 True 7 7 True", "loaded from the cache"
