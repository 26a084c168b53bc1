"""Attempts as Jobs of a real Kubernetes cluster."""
