"""Training: labelled windows + model → bundle.

`_run.train` is the whole of it: networks → windows → members → combination → thresholds → bundle.
"""
