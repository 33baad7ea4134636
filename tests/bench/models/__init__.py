"""Bench `models`: every family and baseline, on every data set, and what compressing them costs."""
