"""Stream processing: Kafka in, alerts out. Pure stages, thin shell."""
