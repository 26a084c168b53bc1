"""Which hints a signed-in person may hear."""

from collections.abc import Collection, Mapping

from console.live.rights import Namespaces, spaces_by_session
from goals.events import NAMESPACE_TOPIC
from goals.models import Goal

Topics = frozenset[str]


def topics_by_session(session_keys: Collection[str]) -> Mapping[str, Topics]:
    """Groups to join, one for each namespace that may be seen; none where every right is lost.

    Left out: ended sessions, and those of people who are shut out. Five queries at most for some
    hundred sessions.
    """
    spaces = spaces_by_session(session_keys)
    every: Topics = frozenset()
    if any(some is None for some in spaces.values()):
        found = Goal.objects.order_by("namespace").values_list("namespace", flat=True)
        every = frozenset({"default", *found.distinct()})
    return {key: _topics(every if some is None else some) for key, some in spaces.items()}


def _topics(namespaces: Namespaces) -> Topics:
    return frozenset(NAMESPACE_TOPIC.format(namespace=name) for name in namespaces or ())
