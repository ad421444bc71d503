"""Faults that take minutes, as seeded commands: python -m load_tests.faults ROW --seed S --json."""
