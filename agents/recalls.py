"""From a request to an artifact that the person may recall, or lift the recall of."""

from agents.selectors import get_artifact
from governance.access import NotAllowed, Principal, within
from governance.domain import Permission
from lineage.models import Artifact

RECALLERS = (Permission.OPERATE, Permission.AUTHOR_POLICY)


def may_recall(principal: Principal, *, namespace: str) -> str:
    """Why this person may not recall digests there, or "" when they may."""
    if any(principal.may(one, namespace=namespace) for one in RECALLERS):
        return ""
    whom = principal.whom_to_ask(Permission.OPERATE, namespace=namespace)
    return f"This needs the role operator or policy_author in namespace {namespace}; {whom}"


def get_recallable_artifact(principal: Principal, digest: str) -> Artifact:
    """A visible artifact the person may recall. Raises NotVisible, NotAllowed."""
    artifact = get_artifact(within(principal, Permission.VIEW), digest)
    why = may_recall(principal, namespace=artifact.namespace)
    if why:
        raise NotAllowed(why)
    return artifact
