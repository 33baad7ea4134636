"""The processes of the streaming pipeline: they wait, commit, retry and end.

What is true of flows, `ids_plugin` says. The package is installed as `ids_consumers`; `commands`
has one file for each verb of `ids-consumer`, and the module of the same name beside it the process.
"""
