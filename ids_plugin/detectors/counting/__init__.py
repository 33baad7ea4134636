"""Counting detectors: named counters, and rules with a threshold of their own for each class."""
