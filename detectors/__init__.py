"""Pure statistics: no I/O, no clock, no logging, no Kafka."""
