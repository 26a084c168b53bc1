"""The catalogue: what of a cluster looks like an agent, why, and what its registration would be."""
