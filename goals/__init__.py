"""What people ask of agents: Goals, task graphs, reconcile, the budget ledger, releases."""
