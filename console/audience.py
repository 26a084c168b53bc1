"""Which hints a signed-in person may hear."""

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.utils import timezone

from goals.access import visible_goals
from goals.events import NAMESPACE_TOPIC
from governance.access import principal_of
from governance.domain import Permission


def topics_of(user_pk: int) -> frozenset[str]:
    """Groups to join: one for each namespace the person may see; none once they are shut out."""
    user = User.objects.filter(pk=user_pk, is_active=True).first()
    if user is None:
        return frozenset()
    principal = principal_of(user)
    spaces = principal.namespaces(Permission.VIEW)
    if spaces is None:
        found = visible_goals(principal).order_by("namespace").values_list("namespace", flat=True)
        spaces = frozenset({"default", *found.distinct()})
    return frozenset(NAMESPACE_TOPIC.format(namespace=name) for name in spaces)


def is_session_alive(session_key: str) -> bool:
    """Whether a session has neither ended nor expired."""
    alive = Session.objects.filter(session_key=session_key, expire_date__gt=timezone.now())
    return alive.exists()
