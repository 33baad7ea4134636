"""What every consumer is as a process: signals, health, logs, metrics, and the bundle in use."""
