"""Attacks, each with parameters of its own, from modest to violent. Every flow of one carries its
class.
"""
