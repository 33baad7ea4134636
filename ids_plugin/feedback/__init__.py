"""Feedback: analysts' verdicts → allow-list proposals and labelled flows.

Nothing is applied here.
"""
