"""The flow meter: packets → connections with Zeek's meaning of every column, in pure NumPy and
Polars.
"""
