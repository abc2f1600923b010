"""Kafka: one connection for all readers of a source, its security, and record batches to Arrow."""
