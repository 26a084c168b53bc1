"""The policy pages: what each person sees, and that the form works without a script."""

from typing import Any

import pytest

from governance.domain import Stage
from governance.models import BundleVersion, Decision
from tests.governance.policy_people import NO_SPENDERS, Hand, make_hands, starter_files
from tests.towers import Tower

pytestmark = pytest.mark.django_db
STARTER = "/policies/starter/1"


@pytest.fixture
def hands(tower: Tower) -> dict[str, Hand]:
    return make_hands()


def form(do: str, *, base: int = 1, **more: Any) -> dict[str, Any]:
    changes = {key: more.pop(key) for key in ("quota", "quota_test") if key in more}
    files = starter_files(**changes)
    return {
        "do": do,
        "name": "starter",
        "base": base,
        "path": [file["path"] for file in files],
        "source": [file["source"].replace("\n", "\r\n") for file in files],
        **more,
    }


def work(hand: Hand, do: str, *, at: str = STARTER, **more: Any) -> Any:
    return hand.browser.post(f"{at}/work", form(do, **more))


def text_of(response: Any) -> str:
    return response.content.decode()


def test_the_list_shows_stage_hits_author_and_signature(
    tower: Tower, hands: dict[str, Hand]
) -> None:
    tower.register("spender")
    tower.reconcile(tower.apply("a", agents="spender").goal)
    page = hands["vic"].browser.get("/policies")
    (card, _), *others = page.context["cards"]
    (row,) = card.rows
    assert not others
    assert row.hits == {"allow": Decision.objects.count()}
    assert (row.version.stage, row.version.created_by, row.signature.word) == (
        "enforce",
        "bootstrap",
        "valid",
    )
    assert 'href="/policies/starter/1"' in text_of(page)


def test_the_list_asks_the_database_no_more_for_more_versions(
    hands: dict[str, Hand], django_assert_max_num_queries: Any
) -> None:
    first = BundleVersion.objects.get()
    for number in range(2, 30):
        first.pk, first.version, first.stage = None, number, Stage.DRAFT
        first.uid = __import__("uuid").uuid4()
        first.save(force_insert=True)
    with django_assert_max_num_queries(9):
        page = hands["vic"].browser.get("/policies", headers={"HX-Request": "true"})
    (card, _), *_ = page.context["cards"]
    assert (len(card.rows), card.versions) == (21, 29)  # the newest twenty and the one in force


def test_a_viewer_reads_and_is_told_why_not_more(hands: dict[str, Hand]) -> None:
    page = text_of(hands["vic"].browser.get(STARTER))
    assert "Saving a policy needs the role policy_author" in page
    assert "Trying a policy out needs the role" in page
    assert "readonly" in page
    assert work(hands["vic"], "test").status_code == 403
    assert hands["vic"].browser.get("/policies/new").status_code == 403
    assert hands["vic"].browser.get("/policies/starter/9").status_code == 404
    assert hands["vic"].browser.get("/policies/none/1").status_code == 404


def test_a_draft_keeps_what_was_typed_and_says_what_is_wrong(hands: dict[str, Hand]) -> None:
    page = work(hands["ada"], "check", quota="\nallow {\n")
    assert page.status_code == 200
    assert [one.path for one in page.context["result"]["problems"]] == ["quota.rego"]
    assert dict(page.context["files"])["quota.rego"].endswith("allow {\r\n")
    part = hands["ada"].browser.post(
        f"{STARTER}/work", form("check", quota="\nallow {\n"), headers={"HX-Request": "true"}
    )
    assert text_of(part).lstrip().startswith('<div id="results"')


def test_evaluate_test_diff_and_impact(tower: Tower, hands: dict[str, Hand]) -> None:
    tower.register("spender")
    tower.reconcile(tower.apply("a", agents="spender").goal)
    decision = Decision.objects.filter(point="graph").latest("at")
    page = work(hands["eva"], "evaluate", decision=decision.uid, quota=NO_SPENDERS)
    assert page.context["result"]["verdict"].outcome == "deny"
    assert 'data-path="quota.rego"' in text_of(page)
    assert "spenders may not run" in text_of(page)

    failing = work(hands["eva"], "test", quota_test="\ntest_wrong if 1 == 2\n")
    assert [one.rule for one in failing.context["result"]["failed"]] == [
        "clearance.quota_test.test_wrong"
    ]
    assert "data-coverage" in text_of(failing)

    compared = work(hands["eva"], "diff", other=1, quota=NO_SPENDERS)
    assert [file.path for file in compared.context["result"]["files"]] == ["quota.rego"]
    assert "<ins>deny contains" in text_of(compared)
    assert "same" in text_of(work(hands["eva"], "diff", other=1))

    replayed = work(hands["eva"], "impact", limit=200, quota=NO_SPENDERS)
    assert replayed.context["result"]["impact"].counts == {"newly_denied": 1}
    assert f'href="/decisions/{decision.uid}"' in text_of(replayed)
    assert f"/goals/{decision.goal_uid}" in text_of(replayed)
    assert Decision.objects.filter(outcome="deny").count() == 0


def test_what_an_action_needs_is_asked_for(hands: dict[str, Hand]) -> None:
    for do, said in (
        ("evaluate", "Choose a recorded input"),
        ("diff", "Choose a version"),
        ("fly", "choose one of those offered"),
    ):
        page = work(hands["ada"], do)
        assert page.status_code == 422
        assert said in text_of(page), do
    assert work(hands["ada"], "impact", limit=10**9).status_code == 422


def test_save_leads_to_the_new_version(hands: dict[str, Hand]) -> None:
    saved = work(hands["ada"], "save", quota=NO_SPENDERS)
    assert (saved.status_code, saved["Location"]) == (302, "/policies/starter/2")
    page = hands["ada"].browser.get("/policies/starter/2")
    assert "is saved and signed" in text_of(page)
    part = hands["ada"].browser.post(
        "/policies/starter/2/work",
        form("save", base=2, quota=NO_SPENDERS),
        headers={"HX-Request": "true"},
    )
    assert part["HX-Redirect"] == "/policies/starter/2"  # the same content is the same version
    late = work(hands["abe"], "save", quota="\n# mine\n")
    assert late.status_code == 409
    assert "ada saved version 2" in text_of(late)
    assert work(hands["eva"], "save").status_code == 403


def test_a_new_bundle(hands: dict[str, Hand]) -> None:
    page = hands["ada"].browser.get("/policies/new")
    assert 'name="name"' in text_of(page)
    sent = {**form("save", base=0, quota=NO_SPENDERS), "name": "team-a"}
    made = hands["ada"].browser.post("/policies/new/0/work", sent)
    assert made["Location"] == "/policies/team-a/1"
    for name in ("Team A", "new", ""):
        wrong = hands["ada"].browser.post("/policies/new/0/work", {**sent, "name": name})
        assert wrong.status_code == 422


def test_stages_by_two_people_and_the_way_back(hands: dict[str, Hand]) -> None:
    work(hands["abe"], "save", quota=NO_SPENDERS)
    at = "/policies/starter/2"

    def move(hand: str, stage: str, seen: int = 1) -> Any:
        return hands[hand].browser.post(f"{at}/stage", {"stage": stage, "seen": seen})

    assert move("abe", "shadow").status_code == 302
    alone = move("abe", "enforce")
    assert alone.status_code == 403
    assert "four eyes" in text_of(alone)
    assert "four eyes" in text_of(hands["abe"].browser.get(at))  # said before it is tried
    assert move("eva", "enforce", seen=7).status_code == 409
    assert move("eva", "fly").status_code == 422
    assert move("eva", "enforce").status_code == 302
    assert "Return to version 1" in text_of(hands["ada"].browser.get(at))
    assert "Return to version 1" in text_of(hands["ada"].browser.get("/policies"))
    assert hands["vic"].browser.post("/policies/starter/return", {"seen": 2}).status_code == 403
    stale = hands["ada"].browser.post("/policies/starter/return", {"seen": 1})
    assert stale.status_code == 409
    back = hands["ada"].browser.post("/policies/starter/return", {"seen": 2})
    assert back["Location"] == STARTER
    assert hands["ada"].browser.post("/policies/none/return", {"seen": 2}).status_code == 404


def test_nobody_without_a_session_sees_anything() -> None:
    from django.test import Client

    for path in ("/policies", "/policies/new", STARTER):
        assert Client().get(path)["Location"].startswith("/login")
