"""Versions of the stored format: a profile has the least that names all it holds, so that what older programs can read they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectors.reference_rows import ARRAYS
from detectors.reference_strata import kinds_of_strata

VERSION = 1
VERSION_STRATA = 2  # where a target has strata
VERSION_KEPT = 3  # where windows are kept
VERSION_ROWS = 4  # where rows are
VERSION_PERFORMANCE = 5  # where metrics of labelled rows are
VERSION_HOURS = 6  # where shares are scored by the rows of their hour
VERSION_ARRAYS = 7  # where rows are arrays
VERSION_SIZES = 8  # where strata are of windows' sizes
VERSION_NEWEST = VERSION_SIZES


def version_needed(strata: Mapping[str, Any], rows: Mapping[str, Any], performance: Mapping[str, Any]) -> int:
    """Of a profile with these sections of strata, and these members of its header; kept windows are no part of the content."""
    by_hour, by_size = kinds_of_strata(strata)
    needed = {
        VERSION_STRATA: strata,
        VERSION_ROWS: rows,
        VERSION_PERFORMANCE: performance,
        VERSION_HOURS: by_hour,
        VERSION_ARRAYS: ARRAYS in rows,
        VERSION_SIZES: by_size,
    }
    return max([VERSION, *(version for version, content in needed.items() if content)])
