"""News of provenance for the apps to the left."""

from django.dispatch import Signal

# Sent inside the transaction of the change, so that whoever journals it commits with it. Keyword
# arguments: action, actor, object_kind, object_id, namespace, goal_uid, body.
provenance_changed = Signal()
