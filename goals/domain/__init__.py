"""What a Goal is: objective, budget, manifest and task graph, as plain values free of Django."""
