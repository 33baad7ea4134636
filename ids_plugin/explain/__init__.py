"""Explanation: windows + Scores → Evidence, for the flows that alert and no others."""
