"""One of everything that a route may name, in namespace `default`, and who asks for it."""

import datetime as dt
import io
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.models import Attempt, ClusterWorkload
from agents.services.identity import AUDIENCE, exchange_join_token, join_token_of
from agents.services.registry import register_agent
from goals.domain.killing import KillScope
from goals.models import Goal, KillSwitch, LedgerEntry, Release
from goals.services.releases import ReleaseRequest, request_release
from governance.access import principal_of
from governance.domain import Permission, Role, Stage
from governance.models import (
    ApiToken,
    Approval,
    BundleVersion,
    Decision,
    Delegation,
    JournalRecord,
    Membership,
    PersonSession,
)
from governance.policy.base import PolicyModule
from governance.services.bundles import move_stage, save_bundle
from governance.services.tokens import create_token
from lineage.domain import Actor, ArtifactKind
from lineage.models import Artifact
from lineage.services.artifacts import Origin, Upload, push_artifact
from tests.agents.identities import csr_of
from tests.console.privileges import (
    AGENT,
    ANONYMOUS,
    ELSEWHERE,
    EXPIRED,
    ROLELESS,
    ROLES,
    VIEW_TOKEN,
)
from tests.goals.gpu_fleet import card, report
from tests.towers import AGENT as AGENT_MANIFEST
from tests.towers import Tower

SPAN_ID = "a" * 16
YEAR = dt.timedelta(days=365)


@dataclass
class World:
    """What the table's routes name."""

    goal: Goal
    attempt: Attempt
    entry: LedgerEntry
    approval: Approval
    release: Release
    artifact: Artifact
    decision: Decision
    record: JournalRecord
    token: ApiToken  # of somebody who asks for nothing
    session: PersonSession  # theirs too
    switch: KillSwitch  # thrown over an agent that is not there
    delegation: Delegation  # among people who ask for nothing
    workload: ClusterWorkload  # of the cluster, not ours
    users: dict[str, User]
    bearers: dict[str, str] = field(default_factory=dict)

    def value_of(self, name: str, route: str) -> str:
        """The value of a route's parameter. Raises KeyError naming a parameter it does not know."""
        parts = route.removeprefix("api/v1/").split("/")
        things: dict[str, Any] = {
            "attempts": self.attempt,
            "agents": self.attempt.agent,
            "entries": self.entry,
            "approvals": self.approval,
            "releases": self.release,
            "decisions": self.decision,
            "tokens": self.token,
            "goals": self.goal,
            "sessions": self.session,
            "kill": self.switch,
            "kill-switches": self.switch,
            "delegations": self.delegation,
            "catalogue": self.workload,
        }
        if name == "uid":
            kind = "delegations" if "delegations" in parts else parts[0]
            return str(things[kind].uid)
        return {
            "reference": f"{self.goal.namespace}/{self.goal.name}",
            "span_id": SPAN_ID,
            "digest": self.artifact.digest,
            "kind": "statement",
            "filename": "risk.bin",
            "seq": str(self.record.seq),
            "namespace": "default",
            "username": "nobody",
            "name": "tuner" if parts[0] == "agents" else "starter",
            "number": "1",
            "node": "n1",
            "device": card(1).id,
            "version": "1",
            "form": "opa",
        }[name]


def make_world(tower: Tower) -> World:
    """A Goal that stopped at its limit with an attempt, a question, a release and their records."""
    document = load_documents(
        AGENT_MANIFEST.format(name="tuner", gpus=1, consumes="", produces="tuned", role="worker")
    )[0]
    document["spec"]["scope"]["artifacts"] = ["file", "evidence"]
    register_agent(parse_agent(document), actor=tower.admin.actor)
    report("n1", card(1))
    goal = tower.apply("rogue", agents="tuner", budget="30 GPU-seconds").goal
    tower.reconcile(goal)
    tower.reconcile(goal)
    (attempt,) = tower.attempts(goal)
    tower.observe(goal, attempt, 99.0, span_id=SPAN_ID)
    token = join_token_of(attempt)
    identity = exchange_join_token(
        token, csr_pem=csr_of(ec.generate_private_key(ec.SECP256R1())), audience=[AUDIENCE]
    )
    for _ in range(8):
        tower.twins.cluster.advance(5_000)
        tower.reconcile(goal)
    operator = tower.operator.actor
    upload = Upload(io.BytesIO(b"weights"), ArtifactKind.MODEL, "risk", "risk.bin")
    artifact = push_artifact(upload, Origin(operator, "https://clearance.test/olivia", "default"))
    release = request_release(
        ReleaseRequest(
            namespace="default",
            service="checkout",
            environment="canary",
            digest=artifact.digest,
            actor=operator,
            reason="It is faster.",
        )
    )
    _enforce_second_version(operator)
    users = {**tower.people, **_more_people()}
    bearers = {name: _token(users[name]) for name in (*ROLES, ELSEWHERE, ROLELESS)}
    nobody = User.objects.create_user("nobody")
    stranger, _ = create_token(nobody, principal=principal_of(nobody), name="theirs")
    bearers[AGENT] = identity.jwt.token
    bearers[EXPIRED] = _token(users["admin"], life=-YEAR)
    bearers[VIEW_TOKEN] = _token(users["admin"], permissions=[Permission.VIEW])
    return World(
        goal=goal,
        attempt=attempt,
        entry=LedgerEntry.objects.filter(account__goal=goal).latest("created_at"),
        approval=Approval.objects.get(goal_uid=goal.uid),
        release=release,
        artifact=artifact,
        decision=Decision.objects.filter(goal_uid=goal.uid).latest("at"),
        record=JournalRecord.objects.filter(goal_uid=goal.uid).latest("seq"),
        token=stranger,
        switch=KillSwitch.objects.create(
            scope=KillScope.AGENT, namespace="default", target="gone", thrown_by="nobody"
        ),
        delegation=Delegation.objects.create(
            delegator=nobody,
            delegate=User.objects.create_user("nobody-else"),
            namespace="default",
            ends_at=timezone.now() + YEAR,
        ),
        workload=ClusterWorkload.objects.create(
            kind="Deployment",
            namespace="default",
            name="helper",
            score=70,
            is_listed=True,
            images=["registry.example/helper:1"],
            service_account="default",
        ),
        session=PersonSession.objects.create(user=nobody, session_key="theirs", device="Firefox"),
        users=users,
        bearers=bearers,
    )


def _enforce_second_version(actor: Actor) -> None:
    first = BundleVersion.objects.get(name="starter")
    modules = [PolicyModule(one["path"], f"{one['source']}\n# 2\n") for one in first.modules]
    second = save_bundle(
        "starter",
        modules=modules,
        parameters=first.parameters,
        actor=actor,
        identity="https://clearance.test/olivia",
    )
    move_stage(second, Stage.ENFORCE, actor=actor)


def _more_people() -> dict[str, User]:
    elsewhere = User.objects.create_user(ELSEWHERE)
    for role in Role:
        Membership.objects.create(user=elsewhere, namespace="other", role=role)
    return {ELSEWHERE: elsewhere, ROLELESS: User.objects.create_user(ROLELESS)}


def _token(user: User, **fields: Any) -> str:
    return create_token(user, principal=principal_of(user), name="table", **fields)[1]


def session_client(world: World, principal: str) -> Client:
    """A browser of the principal; what is no person carries what it has."""
    if principal == ANONYMOUS:
        return Client(raise_request_exception=False)
    if principal == AGENT:
        return bearer_client(world, principal)
    browser = Client(raise_request_exception=False)
    browser.force_login(world.users["admin" if principal == EXPIRED else principal])
    if principal == EXPIRED:
        key = browser.cookies[settings.SESSION_COOKIE_NAME].value
        Session.objects.filter(pk=key).update(expire_date=timezone.now() - YEAR)
    return browser


def bearer_client(world: World, principal: str) -> Client:
    """A program of the principal, with its bearer token."""
    if principal == ANONYMOUS:
        return Client(raise_request_exception=False)
    headers = {"Authorization": f"Bearer {world.bearers[principal]}"}
    return Client(headers=headers, raise_request_exception=False)
