"""False alarms and detection delays of the default detector and of others, on the same seeded streams."""
