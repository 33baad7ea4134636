"""Processes of the wire, one verb a file: they wait, commit, retry and end; what is true of flows, `ids_plugin` says.

Installed as `ids_consumers`; a module without a leading underscore that defines `PLUGIN` is a verb of `ids-consumer`.
"""
