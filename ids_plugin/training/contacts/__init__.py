"""Trains the detectors of the shipped bundle: contacts of real captures → trees, logistic model and
network; counters of normal traffic → their baselines."""
