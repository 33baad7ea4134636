"""The verbs of `ids-consumer`: one file each, with the options of the verb and what runs it.

These modules import no client of a service, so that `ids-consumer --help` works in the plain
install; the module with the process is imported when its verb runs.
"""
