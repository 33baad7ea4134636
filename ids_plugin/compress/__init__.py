"""Compression: bundle → smaller bundle, and what it cost."""
