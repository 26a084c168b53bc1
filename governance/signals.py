"""News of governance for the apps to the left, and what it asks of them."""

from django.dispatch import Signal

# Sent inside the transaction of the answer. Keyword arguments: approval (Approval), actor (Actor).
approval_decided = Signal()

# Asked of whoever keeps the ledger. Keyword argument: goal_uids (frozenset of UUID); a receiver
# returns {goal uid: {unit: amount settled}} for those it knows.
spend_asked = Signal()

# Asked before an answer is written down, inside its transaction. Keyword arguments: approval
# (Approval), answer (dict); a receiver raises ApprovalInvalid for what it could not apply.
answer_checked = Signal()

# Sent inside the transaction in which an open approval was signed, asked about or escalated.
# Keyword argument: approval (Approval).
approval_touched = Signal()

# Asked of whoever knows what the wait costs. Keyword arguments: approvals (list of Approval), and
# has_ways (bool) when also asked how each could go on with less; a receiver returns
# {approval uid: Stake} for those it knows.
stakes_asked = Signal()
