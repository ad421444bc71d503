"""The three lock files agree, so that one environment serves `make demo` and `make test`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.\-]+)==(\S+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, tuple[str, frozenset[str]]]:
    text = (ROOT / ".locks" / name).read_text()
    found = list(PIN.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {
        canonical(match[1]): (match[2], frozenset(HASH.findall(text[match.start() : end])))
        for match, end in zip(found, ends, strict=True)
    }


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt"])
def test_lock_is_part_of_the_development_lock(name: str) -> None:
    part, whole = pins(name), pins("dev.txt")
    assert part
    different = {key for key, (version, _) in part.items() if whole.get(key, ("absent",))[0] != version}
    assert not different


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt", "dev.txt"])
def test_every_pin_has_a_hash(name: str) -> None:
    assert not [key for key, (_, hashes) in pins(name).items() if not hashes]


def test_locks_hold_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["broker"]]
    names = {canonical(re.split(r"[=<>\[]", text)[0].strip()) for text in wanted}
    assert names <= set(pins("runtime.txt"))
