"""Detectors that judge one window after the other and remember."""
