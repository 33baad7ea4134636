"""Alerts: Scores + Evidence + policy → folds → alert documents. Event time only; no I/O."""
