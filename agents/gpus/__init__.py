"""The GPUs of each node as they are measured: readings, who holds them, and what is wrong."""
