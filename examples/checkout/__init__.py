"""A checkout whose risk model is too slow, and the three agents that make it fast enough."""
