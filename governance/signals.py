"""News of governance for the apps to the left, and what it asks of them."""

from django.dispatch import Signal

# Sent inside the transaction of the answer. Keyword arguments: approval (Approval), actor (Actor).
approval_decided = Signal()

# Asked of whoever keeps the ledger. Keyword argument: goal_uids (frozenset of UUID); a receiver
# returns {goal uid: {unit: amount settled}} for those it knows.
spend_asked = Signal()
