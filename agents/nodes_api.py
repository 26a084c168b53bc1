"""API for nodes: their samplers report what they see of the GPUs, each for its own node alone."""

import datetime as dt
from dataclasses import dataclass
from typing import Annotated, Final

from django.http import HttpRequest
from django.utils import timezone
from ninja import Path, Router, Status
from ninja.errors import HttpError
from ninja.security import HttpBearer

from agents.attestation.base import AttestationUnavailable, TokenRefused
from agents.attestation.nodes import get_node_reviewer
from agents.authentication import Unauthenticated
from agents.gpus.reports import SampleIn
from agents.models import GpuNode
from agents.services.gpus import record_sample
from governance.access import NotAllowed, Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.services.tokens import TOKEN_PREFIX, authenticate_token

CLOCK_SECONDS: Final = 30.0  # clocks of one cluster differ by less; beyond it ages would be lies


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports: the sampler of one node, or a person's token for any of them."""

    node: str = ""
    principal: Principal | None = None

    def check(self, node: str) -> None:
        """Raise NotAllowed when that node is not this reporter's."""
        if self.principal is not None:
            self.principal.require(Permission.OPERATE, namespace=EVERY_NAMESPACE)
        elif self.node != node:
            raise NotAllowed(f"This token speaks for node {self.node}, not for {node}.")


class NodeCredential(HttpBearer):
    """`Authorization: Bearer` with the service account token of a node's sampler.

    Where no cluster vouches for nodes, the API token of an operator of every namespace.
    """

    def authenticate(self, request: HttpRequest, token: str) -> Reporter | None:
        """Raises Unauthenticated."""
        if token.startswith(TOKEN_PREFIX):
            principal = authenticate_token(token)
            if principal is None:
                raise Unauthenticated("The API token is unknown, expired or revoked.")
            return Reporter(principal=principal)
        reviewer = get_node_reviewer()
        if reviewer is None:
            raise Unauthenticated(
                "No service account of nodes is known here: set NODE_SERVICE_ACCOUNT to "
                "namespace/name, or send the API token of an operator."
            )
        try:
            return Reporter(node=reviewer.node_of(token))
        except TokenRefused as refused:
            raise Unauthenticated(str(refused)) from refused
        except AttestationUnavailable as error:
            raise HttpError(503, str(error)) from error


nodes_router = Router(tags=["gpus"], auth=NodeCredential())


@nodes_router.put("/{name}/gpus", response={204: None})
def put_gpus(
    request: HttpRequest, name: Annotated[str, Path(max_length=253)], payload: SampleIn
) -> Status[None]:
    """What the sampler of a node sees of its cards now; the same report again changes nothing."""
    reporter = getattr(request, "auth", None)
    if not isinstance(reporter, Reporter):
        raise Unauthenticated("Send the service account token of the node's sampler.")
    reporter.check(name)
    now = timezone.now()
    if payload.at.tzinfo is None:
        raise HttpError(422, "at: give a moment with its time zone, such as 2026-01-31T02:14:00Z.")
    apart = (payload.at - now).total_seconds()
    if abs(apart) > CLOCK_SECONDS:
        raise HttpError(
            422, f"at: the node's clock and ours are {abs(apart):.0f} s apart; set the clock."
        )
    if not _is_old(name, at := min(payload.at, now)):
        record_sample(payload.sample(node=name, at=at))
    return Status(204, None)


def _is_old(name: str, at: dt.datetime) -> bool:
    """Something newer was heard: a report that came late tells nothing."""
    return GpuNode.objects.filter(pk=name, heard_at__gt=at).exists()
