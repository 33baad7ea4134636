"""Benign activities. Each takes a network and its random numbers, and returns batches of
contacts.
"""
