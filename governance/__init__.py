"""What agents may do and who approved it: policies, decisions, approvals, the journal."""
