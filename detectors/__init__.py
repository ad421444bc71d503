"""Pure statistics: no I/O, no clock, no logging, no Kafka.

Every detector is one file and one line here; `detectors.registry` says what a file of each family holds.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from detectors.registry import Card, Entry, Family, Reads
from detectors.registry import card as _card

_DISTANCE, _TEST, _ONLINE, _MULTIVARIATE = Family.DISTANCE, Family.TEST, Family.ONLINE, Family.MULTIVARIATE

REGISTRY: dict[str, Entry] = {
    "default": Entry(Family.SEQUENTIAL, "detectors.sequential.default", promise=True, always=True, parameters="DetectionSettings"),
    "psi": Entry(_DISTANCE, "detectors.distance.psi", always=True),
    "kolmogorov_smirnov": Entry(_DISTANCE, "detectors.distance.kolmogorov_smirnov", Reads.ORDERED, always=True),
    "jensen_shannon": Entry(_DISTANCE, "detectors.distance.jensen_shannon", always=True),
    "hellinger": Entry(_DISTANCE, "detectors.distance.hellinger"),
    "total_variation": Entry(_DISTANCE, "detectors.distance.total_variation"),
    "l_infinity": Entry(_DISTANCE, "detectors.distance.l_infinity"),
    "wasserstein": Entry(_DISTANCE, "detectors.distance.wasserstein", Reads.POSITIONS),
    "energy": Entry(_DISTANCE, "detectors.distance.energy", Reads.POSITIONS),
    "chi_squared": Entry(_TEST, "detectors.distance.chi_squared"),
    "g_test": Entry(_TEST, "detectors.distance.g_test"),
    "kolmogorov_smirnov_test": Entry(_TEST, "detectors.distance.kolmogorov_smirnov_test", Reads.ORDERED),
    "adwin": Entry(_ONLINE, "detectors.online.adwin", Reads.NUMBERS),
    "page_hinkley": Entry(_ONLINE, "detectors.online.page_hinkley", Reads.NUMBERS),
    "kswin": Entry(_ONLINE, "detectors.online.kswin", Reads.NUMBERS),
    "cusum": Entry(_ONLINE, "detectors.online.cusum", Reads.NUMBERS),
    "ewma": Entry(_ONLINE, "detectors.online.ewma", Reads.NUMBERS),
    "ddm": Entry(_ONLINE, "detectors.online.ddm", Reads.ERRORS),
    "eddm": Entry(_ONLINE, "detectors.online.eddm", Reads.ERRORS),
    "hddm_a": Entry(_ONLINE, "detectors.online.hddm_a", Reads.ERRORS),
    "hddm_w": Entry(_ONLINE, "detectors.online.hddm_w", Reads.ERRORS),
    "fhddm": Entry(_ONLINE, "detectors.online.fhddm", Reads.ERRORS),
    "mmd_random_features": Entry(_MULTIVARIATE, "detectors.multivariate.mmd_random_features", Reads.ROW_SUMS),
    "pca_reconstruction": Entry(_MULTIVARIATE, "detectors.multivariate.pca_reconstruction", Reads.ROW_SUMS),
    "domain_classifier": Entry(_MULTIVARIATE, "detectors.multivariate.domain_classifier", Reads.ROW_SAMPLE),
}  # fmt: skip

RECORDED = tuple(name for name, entry in REGISTRY.items() if entry.family is _DISTANCE and entry.always)
"""Distances of every windows record: those that a threshold can be set on."""


def load(name: str) -> ModuleType:
    """The module of a registered detector, imported when it is first asked for. Raises KeyError."""
    return import_module(REGISTRY[name].module)


def card(name: str) -> Card:
    """What a registered detector says of itself. Raises KeyError, BadEntry."""
    return _card(name, REGISTRY[name], load(name))
