"""Data sets: published and own labelled traffic → frames with labels."""
