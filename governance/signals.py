"""News of governance for the apps to the left."""

from django.dispatch import Signal

# Sent inside the transaction of the answer. Keyword arguments: approval (Approval), actor (Actor).
approval_decided = Signal()
