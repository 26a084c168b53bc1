"""What the agents' app asks of the apps to its left."""

from django.dispatch import Signal

# Asked of whoever judges conduct. Keyword argument: agent (Agent); a receiver returns
# {attempt uid: document} for the attempts it has judged last, as agents.schemas.ConductOut.
conduct_asked = Signal()
