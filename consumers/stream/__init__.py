"""Kafka beneath the consumers: transactions, the reorder buffer, flow batches, checkpoints, topics."""
