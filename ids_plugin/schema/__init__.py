"""The nouns: Flow, Window, Score, Evidence, Alert. Columns, dtypes and units; no logic, no I/O."""
