"""Each fact one click away: what a record is about, and who acted, lead to their pages."""

import re
from typing import Any

import pytest
from django.test import Client

from agents.models import Agent
from goals.domain.killing import KillScope, KillTarget
from goals.models import LedgerEntry
from goals.services.kill import throw_switch
from governance.models import JournalRecord
from tests.goals.provenance import as_, provenance

pytestmark = pytest.mark.django_db

# No page shows these: the table of a trust domain's keys and of prices is the API's.
PAGELESS = {"trust_domain", "price"}


@pytest.fixture
def world(tower: Any, people: Any) -> Any:
    made = provenance(tower)
    target = KillTarget(KillScope.AGENT, "default", "gone", "default/gone")
    throw_switch(target, principal=tower.operator, reason="")
    return made


def links_of(browser: Client, path: str, label: str) -> list[str]:
    page = browser.get(path).content.decode()
    cells = re.findall(rf'data-label="{label}">(.*?)</td>', page, re.DOTALL)
    return [link for cell in cells for link in re.findall(r'href="([^"]+)"', cell)]


def test_every_object_of_the_journal_leads_to_its_page(world: Any, people: Any) -> None:
    browser = as_(people, "admin")
    dead = {}
    for record in JournalRecord.objects.exclude(object_kind__in=PAGELESS):
        path = f"/journal?q=seq:{record.seq}"
        for link in links_of(browser, path, "Object") or ["none"]:
            answer = browser.get(link, follow=True)
            if link == "none" or answer.status_code != 200:
                dead[record.object_kind] = link
    assert dead == {}
    kinds = set(JournalRecord.objects.values_list("object_kind", flat=True))
    assert {"agent", "artifact", "goal", "kill_switch", "ledger_entry", "release"} <= kinds


def test_an_entry_is_found_on_whatever_page_of_the_ledger(world: Any, people: Any) -> None:
    entry = LedgerEntry.objects.earliest("created_at")
    answer = as_(people, "viewer").get(f"/entries/{entry.uid}", follow=True)
    page = answer.content.decode()
    assert re.findall(r'id="entry-([^"]+)"', page) == [str(entry.uid)]
    assert "This entry alone." in page


def test_whoever_may_not_see_it_finds_neither_entry_nor_agent(
    world: Any, django_user_model: Any
) -> None:
    stranger = Client()
    stranger.force_login(django_user_model.objects.create_user("stranger"))
    entry, agent = LedgerEntry.objects.earliest("created_at"), Agent.objects.earliest("created_at")
    assert stranger.get(f"/entries/{entry.uid}").status_code == 404
    assert stranger.get(f"/agents/{agent.uid}").status_code == 404


def test_who_acted_leads_to_the_agent_and_for_administrators_to_the_person(
    world: Any, people: Any
) -> None:
    asked = "/journal?q=action:goal.created"
    assert "/people/operator" in links_of(as_(people, "admin"), asked, "Actor")
    assert links_of(as_(people, "viewer"), asked, "Actor") == []
    assert links_of(as_(people, "operator"), asked, "Actor") == ["/profile"]
    acted = JournalRecord.objects.filter(actor_kind="agent").first()
    assert acted is not None
    found = links_of(as_(people, "viewer"), f"/journal?q=seq:{acted.seq}", "Actor")
    assert re.fullmatch(r"/agents/default/[a-z-]+", found[0])
