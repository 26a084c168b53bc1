"""What runs in the cluster besides our attempts: nodes, GPUs, pods of others, kept as facts."""
