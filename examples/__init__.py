"""Worked examples of Clearance: real programs, real data."""
