"""Scoring: bundle + windows → Scores. ONNX Runtime and LightGBM's C library; torch is never imported here."""
