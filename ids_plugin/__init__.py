"""Learned network intrusion detection for Zeek and Suricata pipelines that says why."""

__version__ = "0.1.0"
