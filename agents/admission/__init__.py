"""Admission: what the API server asks before it takes a workload or a Goal in."""
