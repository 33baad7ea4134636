"""Windows: features → temporal windows, the same for a whole log and for a stream in batches of any size."""
