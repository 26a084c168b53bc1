"""Pages of Goals, and of the agents and artifacts that belong to them."""
