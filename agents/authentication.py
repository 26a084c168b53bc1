"""From the credential of a request to who asks: a person, their token, or an attempt."""

from dataclasses import dataclass

from django.http import HttpRequest
from ninja.security import APIKeyCookie, HttpBearer

from agents.models import Attempt
from agents.services.identity import authenticate_attempt
from governance.access import NotAllowed, Principal, principal_of
from governance.services.tokens import TOKEN_PREFIX, authenticate_token
from lineage.domain import Actor, ActorKind


class Unauthenticated(Exception):
    """No credential, or one that is not accepted; the text says which."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: exactly one of `principal` (a person) and `attempt` (an agent at work) is set."""

    principal: Principal | None = None
    attempt: Attempt | None = None

    @property
    def actor(self) -> Actor:
        if self.attempt is not None:
            return Actor(ActorKind.AGENT, self.attempt.spiffe_id)
        return self.person.actor

    @property
    def person(self) -> Principal:
        """The person. Raises NotAllowed for an agent."""
        if self.principal is None:
            raise NotAllowed("An agent may not do this; it is for people.")
        return self.principal

    @property
    def agent(self) -> Attempt:
        """The attempt. Raises NotAllowed for a person."""
        if self.attempt is None:
            raise NotAllowed("This is for agents at work, with their JWT-SVID.")
        return self.attempt


class BearerCredential(HttpBearer):
    """`Authorization: Bearer` with an API token of a person or the JWT-SVID of an attempt."""

    def authenticate(self, request: HttpRequest, token: str) -> Caller | None:
        """Raises Unauthenticated, `IdentityRefused`s."""
        if token.startswith(TOKEN_PREFIX):
            principal = authenticate_token(token)
            if principal is None:
                raise Unauthenticated("The API token is unknown, expired or revoked.")
            return Caller(principal=principal)
        return Caller(attempt=authenticate_attempt(token))


class SessionCredential(APIKeyCookie):
    """The session cookie of a signed-in person; unsafe methods need the CSRF token too."""

    param_name = "sessionid"

    def authenticate(self, request: HttpRequest, key: str | None) -> Caller | None:
        if not request.user.is_authenticated:
            return None
        return Caller(principal=principal_of(request.user))


def caller_of(request: HttpRequest) -> Caller:
    """Who asks, as the credential established it."""
    caller = getattr(request, "auth", None)
    if not isinstance(caller, Caller):
        raise Unauthenticated("Sign in, or send a bearer token.")
    return caller
