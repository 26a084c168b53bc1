"""Fixtures of governance: a tower with the starter bundle in force."""

from tests.goals.conftest import tower

__all__ = ["tower"]
