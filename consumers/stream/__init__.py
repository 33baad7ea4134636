"""What the consumers need of Kafka: transactions, reordering, checkpoints, topics."""
