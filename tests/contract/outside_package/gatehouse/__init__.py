"""Plugins for ids-plugin from another package: a source, a kind of scoring member, a sink."""
