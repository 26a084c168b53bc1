"""The lineage explorer: questions about provenance, their answers, and the graph behind them."""
