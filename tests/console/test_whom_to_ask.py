"""Each refusal names somebody who could do it, but nobody of where the person may not look."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
from django.test import Client

from governance.access import principal_of
from governance.domain import EVERY_NAMESPACE, Permission, Role
from governance.models import Membership
from tests.console.real_tower import ROOT

pytestmark = pytest.mark.django_db

SOURCES: Final = ("agents", "console", "goals", "governance", "lineage", "templates")
NAMELESS: Final = re.compile(r"\b(ask|Ask) an administrator")
# The one sentence that is made, and the map's, which a role lost while it is open brings up.
ALLOWED: Final = {"governance/access.py", "templates/console/_tower_map.html"}


def test_no_text_sends_people_to_somebody_nameless() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in SOURCES
        for path in (Path(ROOT) / folder).rglob("*")
        if path.suffix in (".py", ".html") and NAMELESS.search(path.read_text())
    }
    assert found <= ALLOWED


PAGES: Final = (
    # a person with a role elsewhere only, what they are refused, and whom they are told to ask
    ("viewer", "/goals/new", "Making a Goal needs the role operator; ask admin."),
    ("viewer", "/policies/new", "Saving a policy needs the role policy_author or admin; ask"),
    ("viewer", "/audit", "Needs the role auditor; ask"),
    ("viewer", "/tower", "Steering needs the role operator; ask"),
    ("nobody", "/agents", "It needs the role viewer; ask admin."),
    ("nobody", "/goals", "It needs the role viewer; ask admin."),
    ("nobody", "/tower", "It needs the role viewer; ask admin."),
    ("nobody", "/audit/verify", "Verifying packs needs a role, viewer at least; ask admin."),
)


@pytest.mark.parametrize(("who", "path", "words"), PAGES)
def test_a_page_names_whom_to_ask(
    people: Any, django_user_model: Any, who: str, path: str, words: str
) -> None:
    people["nobody"] = django_user_model.objects.create_user(username="nobody")
    client = Client()
    client.force_login(people[who])
    page = re.sub(r"\s+", " ", client.get(path).content.decode())
    assert words in page


def test_who_works_in_a_hidden_namespace_is_not_told(people: Any, django_user_model: Any) -> None:
    secret = django_user_model.objects.create_user(username="secret-operator")
    for role in (Role.OPERATOR, Role.ADMIN, Role.AUDITOR):
        Membership.objects.create(user=secret, namespace="hidden", role=role)
    client = Client()
    client.force_login(people["operator"])
    draft = (
        "apiVersion: orchestration.ai/v1\nkind: Goal\nmetadata: {name: x, namespace: hidden}\n"
        'spec: {objective: "loss < 0.1", budget: 1 GPU-minutes, agents: [tuner]}\n'
    )
    body = {"manifest": draft, "step": "apply", "mode": "yaml"}
    page = client.post("/goals/new", body).content.decode()
    assert "in namespace hidden; ask admin." in page
    assert "secret-operator" not in page
    live = client.post("/goals/new/draft", {"text": draft}, content_type="application/json")
    assert "needs the role operator in namespace hidden; ask admin." in live.content.decode()
    Membership.objects.create(user=people["operator"], namespace="hidden", role=Role.VIEWER)
    page = client.post("/goals/new", body).content.decode()
    assert "ask secret-operator or admin." in page


def test_a_list_asks_once_whom_to_ask(people: Any, django_assert_max_num_queries: Any) -> None:
    principal = principal_of(people["viewer"])
    with django_assert_max_num_queries(2):
        for _ in range(5):
            principal.whom_to_ask(Permission.AUDIT, namespace=EVERY_NAMESPACE)
