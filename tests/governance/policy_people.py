"""People of the policy tests: two authors and two signers who may act in every namespace."""

import json
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User
from django.test import Client

ROLES = {
    "ada": ["policy_author"],
    "abe": ["policy_author", "approver"],
    "eva": ["approver"],
    "vic": ["viewer"],
}
STARTER_URL = "/api/v1/bundles/starter"


@dataclass
class Hand:
    """One person with an API token and a browser session."""

    user: User
    api: Client
    browser: Client

    def get(self, path: str, **query: Any) -> Any:
        return self.api.get(f"/api/v1/bundles{path}", query)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.api.post(
            f"/api/v1/bundles{path}", json.dumps(body), content_type="application/json"
        )

    def move(self, version: int, stage: str, **more: Any) -> Any:
        return self.post(f"/starter/versions/{version}/stage", {"stage": stage, **more})


def make_hands() -> dict[str, Hand]:
    from governance.access import principal_of
    from governance.models import Membership
    from governance.services.tokens import create_token

    hands = {}
    for name, roles in ROLES.items():
        user = User.objects.create_user(username=name)
        for role in roles:
            Membership.objects.create(user=user, namespace="*", role=role)
        _, text = create_token(user, principal=principal_of(user), name="test")
        browser = Client()
        browser.force_login(user)
        api = Client(headers={"Authorization": f"Bearer {text}"})
        hands[name] = Hand(user, api, browser)
    return hands


def starter_files(**changes: str) -> list[dict[str, str]]:
    """The starter bundle's files, some of them with text put at their end."""
    from governance.models import BundleVersion
    from governance.policy_selectors import files_of

    version = BundleVersion.objects.get(name="starter", version=1)
    return [
        {"path": path, "source": source + changes.pop(path.partition(".")[0], "")}
        for path, source in files_of(version)
    ]


NO_SPENDERS = """
deny contains "spenders may not run" if {
	some task in input.tasks
	task.agent.name == "spender"
}
"""
