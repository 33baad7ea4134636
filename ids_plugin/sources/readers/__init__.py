"""Readers: bytes of a format (lines, JSON, Zeek TSV, documents) → columns that a source makes flows
of."""
