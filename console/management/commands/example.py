"""Set the checkout example up: its people, agents, first model, release and Goals."""

import json
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand

from agents.domain.documents import load_documents
from agents.domain.manifest import parse_agent
from agents.services.registry import register_agent
from examples.checkout.prepare import measure_accuracy, train_heavy_model
from goals.domain.manifest import parse_goal
from goals.models import Goal
from goals.services.apply import apply_goal
from goals.services.releases import ReleaseRequest, current_release, request_release
from governance.access import Principal, principal_of
from governance.domain import Permission, Role
from governance.models import ApiToken, Membership
from governance.services.tokens import authenticate_token, create_token
from lineage.domain import ArtifactKind
from lineage.services.artifacts import Origin, Upload, push_artifact

NAMESPACE = "default"
SERVICE, PRODUCTION = "checkout", "production"
MODEL_NAME = "checkout-risk"
TEAM = "shop-team"  # who asks for the Goals, so that the administrator may approve (four eyes)
READER = "checkout-service"
FOLDER = settings.BASE_DIR / "examples" / "checkout"
AGENT_FILES = ("agents.yaml", "rogue-agents.yaml")
GOAL_FILES = ("goal.yaml", "rogue-fine-tune.yaml")


class Command(BaseCommand):
    """`manage.py example`: safe to repeat; Goals are applied on the first run only.

    Where the cluster is Kubernetes no Goal is applied: `kubectl apply -f` does that.
    """

    help = "Set up the checkout example."

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Repeating it changes nothing."""
        team = principal_of(_person(TEAM, Role.OPERATOR))
        _leave_token(_person(READER, Role.VIEWER))
        for name in AGENT_FILES:
            for document in _documents(name):
                register_agent(parse_agent(document), actor=team.actor)
        if current_release(NAMESPACE, service=SERVICE, environment=PRODUCTION) is None:
            _release_first_model(team)
        if settings.CLUSTER_URL.startswith("kubernetes:"):
            # There people ask with kubectl; a Goal of ours of that name would be in their way.
            print(f"apply a Goal: kubectl apply -f {FOLDER / GOAL_FILES[0]}")
            return
        for name in GOAL_FILES:
            for document in _documents(name):
                manifest = parse_goal(document)
                if not Goal.objects.filter(namespace=NAMESPACE, name=manifest.name).exists():
                    apply_goal(manifest, principal=team)
                    print(f"Goal {manifest.namespace}/{manifest.name} applied")


def _documents(name: str) -> list[Any]:
    """The manifests of a file; agents find the service where this tower runs it."""
    documents = list(load_documents((FOLDER / name).read_bytes()))
    for document in documents:
        environment = document["spec"].get("env", {})
        if "CHECKOUT_URL" in environment:
            environment["CHECKOUT_URL"] = f"http://127.0.0.1:{settings.CHECKOUT_PORT}"
    return documents


def _person(name: str, role: Role) -> User:
    """A person nobody can sign in as: the account has no password."""
    user, is_new = User.objects.get_or_create(username=name)
    if is_new:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    Membership.objects.get_or_create(user=user, namespace=NAMESPACE, role=role)
    return user


def _leave_token(user: User) -> None:
    """A token that may only look, where the service looks for it."""
    path = Path(
        os.environ.get(
            "CLEARANCE_TOKEN_FILE", settings.CLEARANCE_DATA / "example" / "checkout.token"
        )
    )
    if path.is_file() and authenticate_token(path.read_text().strip()) is not None:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    ApiToken.objects.filter(user=user).delete()
    _, text = create_token(
        user,
        principal=principal_of(user),
        name="checkout",
        permissions=[Permission.VIEW.value],
        namespace=NAMESPACE,
    )
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _release_first_model(team: Principal) -> None:
    path = train_heavy_model(settings.CLEARANCE_DATA / "example" / "models")
    accuracy = measure_accuracy(path)
    with path.open("rb") as stream:
        artifact = push_artifact(
            Upload(
                stream=stream,
                kind=ArtifactKind.MODEL,
                name=MODEL_NAME,
                filename=path.name,
            ),
            Origin(
                actor=team.actor,
                identity=f"{settings.WEB_URL}/people/{TEAM}",
                namespace=NAMESPACE,
                parameters={"accuracy": json.dumps(accuracy.percent)},
            ),
        )
    request_release(
        ReleaseRequest(
            namespace=NAMESPACE,
            service=SERVICE,
            environment=PRODUCTION,
            digest=artifact.digest,
            actor=team.actor,
            reason="The model the shop starts with.",
        )
    )
    print(f"{SERVICE}/{PRODUCTION} serves {artifact.digest}")
