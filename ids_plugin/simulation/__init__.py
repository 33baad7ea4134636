"""Simulation: networks, their activities and attacks, drawn by seed → labelled flows as Zeek logs
them.
"""
