"""What every consumer is as a process: signals, patience with services, logs, metrics, the bundle in force."""
