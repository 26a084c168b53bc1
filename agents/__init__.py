"""Which agents exist and run: registry, identity, attempts, GPUs, the cluster."""
