"""Training: labelled windows + model → bundle."""
