"""The operator: keeps the rows of Goals and their custom resources the same, both ways."""
