"""`clearance`: the command line over the HTTP API; nothing here imports Django."""
