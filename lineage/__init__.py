"""What happened, provably: spans, artifacts, the provenance graph, evidence."""
