"""Runs one local workload and outlives whoever started it: standard library only, no Django.

The launcher puts `agents/cluster` on the path and imports this package by its short name, so that
a shim costs one small interpreter; hence every import in here is relative or standard library.
"""
