"""Sinks: alerts → outside world. A file here that defines `PLUGIN` is a kind of sink."""
