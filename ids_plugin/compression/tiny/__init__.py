"""Compression of `tiny_cnn`: rungs for ever smaller devices, whole-number networks, C headers."""
