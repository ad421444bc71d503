"""Results that survive a stop: a file for each finished part of a run, taken over by a later run that would measure the same.

Parts(folder, stamp)    get(kind, name) -> what was kept, None if there is nothing or it is of another stamp; keep(kind, name, value)
code_digest()           of the detectors and of this load test, as they are on disk: a commit elsewhere changes nothing that is measured
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("detectors", "load_tests/detection")


def code_digest(root: Path = ROOT) -> str:
    """Of the names and contents of all files of MEASURED."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for folder in MEASURED for path in (root / folder).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)} ".encode() + content)
    return digest.hexdigest()


class Parts:
    """`folder`: made if absent; None = nothing is kept. `stamp`: whatever decides what a part's figures are, JSON values."""

    def __init__(self, folder: Path | None, stamp: Mapping[str, Any]) -> None:
        self.folder = folder
        self.stamp = json.loads(json.dumps(dict(stamp)))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def get(self, kind: str, name: str) -> Any | None:
        """What was kept under these names by a run of the same stamp."""
        if self.folder is None or not (path := self._path(self.folder, kind, name)).exists():
            return None
        kept = json.loads(path.read_text())
        different = sorted(
            key for key in {*self.stamp, *kept["stamp"]} if self.stamp.get(key) != kept["stamp"].get(key)
        )
        if different:
            print(
                f"{path.name}: measured anew, for it is of another {', '.join(different)}", file=sys.stderr, flush=True
            )
            return None
        return kept["value"]

    def keep(self, kind: str, name: str, value: Any) -> None:
        """Whole or not at all. Numbers that are not finite as Python's json has them."""
        if self.folder is None:
            return
        path = self._path(self.folder, kind, name)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"name": name, "stamp": self.stamp, "value": value}))
        part.replace(path)

    def _path(self, folder: Path, kind: str, name: str) -> Path:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return folder / f"{kind}-{plain}-{zlib.crc32(name.encode()):08x}.json"
