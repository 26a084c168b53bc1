"""Pages as people see them: who may, what is shown, what is refused."""

import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from goals.models import Goal
from governance.models import Approval, JournalRecord
from tests.towers import GOAL

pytestmark = pytest.mark.django_db

ROLES = ("viewer", "operator", "approver", "policy_author", "auditor", "admin")
LISTS = ("/goals", "/approvals", "/agents", "/releases", "/journal", "/tokens")


def run_to_limit(tower: Any) -> Goal:
    tower.register("tuner", gpus=1)
    goal = tower.apply("rogue", agents="tuner", budget="30 GPU-seconds").goal
    for _ in range(8):
        tower.reconcile(goal)
        tower.twins.cluster.advance(5_000)
    return tower.reconcile(goal)


def goal_pages(goal: Goal) -> list[str]:
    base = f"/goals/{goal.namespace}/{goal.name}"
    tabs = ("ledger", "attempts", "decisions", "trace", "lineage", "journal")
    return [base, f"/goals/{goal.uid}", *(f"{base}/{tab}" for tab in tabs)]


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_look_at_every_page(tower: Any, signed_in: Any, role: str) -> None:
    goal = run_to_limit(tower)
    (attempt,) = tower.attempts(goal)
    approval = Approval.objects.get()
    record = JournalRecord.objects.filter(namespace="default").first()
    browser = signed_in(role)
    for path in [
        *LISTS,
        *goal_pages(goal),
        f"/attempts/{attempt.uid}",
        f"/approvals/{approval.uid}",
        f"/journal/{record.seq}",
    ]:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert "None" not in re.sub(r"<[^>]*>", "", answer.content.decode()), path


def test_without_a_session_every_page_leads_to_the_sign_in(tower: Any) -> None:
    goal = run_to_limit(tower)
    for path in [*LISTS, *goal_pages(goal), "/"]:
        answer = Client().get(path)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/login?next=/")
    part = Client().get("/goals", headers={"HX-Request": "true"})
    assert (part.status_code, part["HX-Redirect"]) == (401, "/login?next=%2F")


def test_another_namespace_is_as_good_as_missing(tower: Any, signed_in: Any) -> None:
    goal = run_to_limit(tower)
    (attempt,) = tower.attempts(goal)
    approval = Approval.objects.get()
    record = JournalRecord.objects.filter(goal_uid=goal.uid).first()
    Goal.objects.filter(pk=goal.pk).update(namespace="other")
    for row in (attempt, approval, record):
        type(row).objects.filter(pk=row.pk).update(namespace="other")
    browser = signed_in("operator")
    hidden = [
        f"/goals/other/{goal.name}",
        f"/goals/{goal.uid}",
        f"/goals/{goal.uid}/ledger",
        f"/attempts/{attempt.uid}",
        f"/approvals/{approval.uid}",
        f"/journal/{record.seq}",
    ]
    missing = [
        "/goals/other/nothing",
        f"/goals/{uuid.uuid4()}",
        f"/goals/{uuid.uuid4()}/ledger",
        f"/attempts/{uuid.uuid4()}",
        f"/approvals/{uuid.uuid4()}",
        "/journal/999999",
    ]
    for one, other in zip(hidden, missing, strict=True):
        first, second = browser.get(one), browser.get(other)
        assert first.status_code == second.status_code == 404
        assert "rogue" not in first.content.decode().replace(one.rpartition("/")[2], "")
    assert "rogue" not in browser.get("/goals").content.decode()
    assert signed_in("admin").get(hidden[0]).status_code == 200


def test_every_answer_carries_the_policy_with_a_fresh_nonce(tower: Any, signed_in: Any) -> None:
    browser = signed_in("viewer")
    first, second = (browser.get("/goals") for _ in range(2))
    policy = first["Content-Security-Policy"]
    for part in (
        "default-src 'none'",
        "style-src 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types htmx",
    ):
        assert part in policy
    assert "unsafe" not in policy
    (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
    assert f'nonce="{nonce}"' in first.content.decode()
    assert nonce not in second["Content-Security-Policy"]
    assert "HX-Request" in first["Vary"]
    page = first.content.decode()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=|hx-on|js:", page)
    assert "https://" not in page


def test_a_part_is_the_same_url_without_the_frame(tower: Any, signed_in: Any) -> None:
    goal = run_to_limit(tower)
    browser = signed_in("viewer")
    for path in ("/goals", "/approvals", "/agents", "/releases", "/journal", *goal_pages(goal)):
        part = browser.get(path, headers={"HX-Request": "true"})
        text = part.content.decode()
        assert part.status_code == 200
        assert text.lstrip().startswith(("<div", "<section")), path
        assert 'id="live"' in text
        assert "<html" not in text


def test_lists_ask_the_database_as_often_for_many_as_for_one(
    tower: Any, signed_in: Any, django_assert_max_num_queries: Any
) -> None:
    tower.register("profiler")
    for index in range(12):
        tower.apply(f"goal-{index}")
    browser = signed_in("viewer")
    limits = {"/goals": 12, "/approvals": 10, "/agents": 9, "/releases": 9, "/journal": 10}
    for path, limit in limits.items():
        with django_assert_max_num_queries(limit):
            assert browser.get(path).status_code == 200


def test_the_list_is_filtered_by_text_phase_and_namespace(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    tower.apply("alpha")
    tower.apply("beta")
    browser = signed_in("viewer")

    def names(query: str) -> set[str]:
        page = browser.get(f"/goals?{query}").content.decode()
        return {name for name in ("alpha", "beta") if f"default/{name}" in page}

    assert names("") == {"alpha", "beta"}
    assert names("q=alph") == {"alpha"}
    assert names("phase=Draft") == {"alpha", "beta"}
    assert names("phase=Failed") == set()
    assert names("namespace=other") == set()
    assert browser.get("/goals?phase=Nonsense").status_code == 422


def test_empty_pages_say_so(people: Any, twins: Any, signed_in: Any) -> None:
    browser = signed_in("viewer")
    for path, words in {
        "/goals": "No Goal has been asked for",
        "/approvals": "Nothing waits for an answer",
        "/agents": "No agent is registered",
        "/releases": "Nothing was ever released",
        "/journal": "No record that you may see",
    }.items():
        assert words in browser.get(path).content.decode()


# --- a new Goal ---------------------------------------------------------------------------------


def manifest(**changes: str) -> str:
    words = {"name": "fresh", "agents": "profiler", "budget": "50 GPU-minutes", "more": ""}
    return GOAL.format(**{**words, **changes})


def test_a_check_shows_the_plan_and_keeps_nothing(tower: Any, signed_in: Any) -> None:
    tower.register("profiler", produces="latency-profile")
    tower.register("optimizer", gpus=1, consumes="latency-profile")
    browser = signed_in("operator")
    text = manifest(agents="profiler, optimizer")
    answer = browser.post("/goals/new", {"manifest": text, "step": "check"})
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "Plan of default/fresh" in page
    assert "Policy allows it" in page
    assert "P50 20, P90 20 GPU-seconds" in page
    assert "declared" in page
    assert not Goal.objects.exists()


def test_a_check_names_the_rule_and_line_that_would_deny(tower: Any, signed_in: Any) -> None:
    tower.register("greedy", gpus=3, role="experimental")
    answer = signed_in("operator").post(
        "/goals/new", {"manifest": manifest(agents="greedy"), "step": "check"}
    )
    page = answer.content.decode()
    assert "Policy would deny this" in page
    assert "limited to 2 GPUs" in page
    assert re.search(r"\.rego:\d+", page)


def test_every_wrong_field_is_named_with_its_path(tower: Any, signed_in: Any) -> None:
    text = manifest(agents="nobody", budget="50 parsecs")
    answer = signed_in("operator").post("/goals/new", {"manifest": text, "step": "apply"})
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "spec.budget" in page
    assert "50 parsecs" in page  # what was typed is still there
    assert not Goal.objects.exists()
    for bad in ("", "{", "a: &x 1", "kind: Goal\n---\nkind: Goal\n", "\x00"):
        answer = signed_in("operator").post("/goals/new", {"manifest": bad, "step": "check"})
        assert answer.status_code == 422, bad


def test_apply_makes_the_goal_and_leads_to_it(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    browser = signed_in("operator")
    answer = browser.post("/goals/new", {"manifest": manifest(), "step": "apply"})
    assert (answer.status_code, answer["Location"]) == (302, "/goals/default/fresh")
    goal = Goal.objects.get()
    assert goal.requested_by == "operator"
    assert JournalRecord.objects.filter(action="goal.created", actor_id="operator").exists()
    part = browser.post(
        "/goals/new",
        {"manifest": manifest(name="second"), "step": "apply"},
        headers={"HX-Request": "true"},
    )
    assert part["HX-Redirect"] == "/goals/default/second"


def test_who_may_not_make_a_goal_is_told_why(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    browser = signed_in("viewer")
    assert "New Goal" not in browser.get("/goals").content.decode()
    answer = browser.post("/goals/new", {"manifest": manifest(), "step": "apply"})
    assert answer.status_code == 403
    assert "role operator" in answer.content.decode()
    other = manifest().replace("namespace: default", "namespace: other")
    answer = signed_in("operator").post("/goals/new", {"manifest": other, "step": "apply"})
    assert answer.status_code == 403
    assert not Goal.objects.exists()


# --- a Goal -------------------------------------------------------------------------------------


def test_a_goal_shows_its_graph_verdicts_budget_and_what_it_waits_for(
    tower: Any, signed_in: Any
) -> None:
    goal = run_to_limit(tower)
    page = signed_in("viewer").get(f"/goals/default/{goal.name}").content.decode()
    assert "not measured yet" in page
    assert "limit reached" in page
    assert "Waiting for a human" in page
    assert re.search(r"<svg[^>]*graph", page)
    assert 'id="task-tuner"' in page
    assert "P50 20 / 20" not in page
    assert "needs the role operator in namespace default" in page


def test_steering_needs_the_role_and_the_right_phase(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    path = f"/goals/default/{goal.name}/steer"
    assert signed_in("viewer").post(path, {"step": "pause"}).status_code == 403
    operator = signed_in("operator")
    assert operator.post(path, {"step": "pause"}).status_code == 302
    goal.refresh_from_db()
    assert goal.desired == "pause"
    assert operator.post(path, {"step": "resume"}).status_code == 302
    assert operator.post(path, {"step": "explode"}).status_code == 422
    answer = operator.post(path, {"step": "cancel", "reason": "Enough."}, follow=True)
    assert "asked to cancel" in answer.content.decode()
    tower.reconcile(goal)
    assert goal.phase == "Cancelled"
    answer = operator.post(path, {"step": "pause"})
    assert answer.status_code == 409
    assert "cannot pause now" in answer.content.decode()


def test_a_deleted_goal_is_found_by_its_permalink_alone(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    goal = tower.apply().goal
    operator = signed_in("operator")
    operator.post(f"/goals/default/{goal.name}/steer", {"step": "delete"})
    tower.reconcile(goal)
    assert operator.get(f"/goals/default/{goal.name}").status_code == 404
    page = operator.get(f"/goals/{goal.uid}").content.decode()
    assert "its records are kept" in page
    assert f'href="/goals/{goal.uid}/ledger"' in page


def test_spans_are_shown_with_causes_and_are_marked_unverified(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    goal = tower.reconcile(tower.apply().goal)
    (attempt,) = tower.attempts(goal)
    tower.observe(goal, attempt, 312.0)
    browser = signed_in("viewer")
    page = browser.get(f"/goals/default/{goal.name}/trace").content.decode()
    assert "observe latency" in page
    assert "unverified" in page
    picked = browser.get("/spans/" + "a" * 16, follow=True)
    assert "the chain begins here" in picked.content.decode()
    assert browser.get("/spans/" + "b" * 16).status_code == 404
    overview = browser.get(f"/goals/default/{goal.name}").content.decode()
    assert "312 ms" in overview
    assert "not met" in overview


def test_a_dead_telemetry_store_is_unknown_and_not_an_error(tower: Any, signed_in: Any) -> None:
    from lineage.telemetry.base import TelemetryUnavailable

    tower.register("profiler")
    goal = tower.apply().goal
    browser = signed_in("viewer")
    tower.twins.telemetry.fail_next(TelemetryUnavailable("down"))
    page = browser.get(f"/goals/default/{goal.name}")
    assert page.status_code == 200
    assert "not measured yet" in page.content.decode()
    tower.twins.telemetry.fail_next(TelemetryUnavailable("down"))
    answer = browser.get(f"/goals/default/{goal.name}/trace")
    assert answer.status_code == 503
    assert "does not answer" in answer.content.decode()


def test_text_of_an_agent_is_escaped_clipped_and_boxed(tower: Any, signed_in: Any) -> None:
    goal = run_to_limit(tower)
    words = "<script>alert(1)</script>" + "x" * 900
    Approval.objects.update(agent_words=words)
    page = signed_in("approver").get(f"/approvals/{Approval.objects.get().uid}").content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "written by the agent, unverified" in page
    assert "325 more characters are not shown" in page
    assert str(goal.uid) in page


# --- approvals ----------------------------------------------------------------------------------


def answer_form(approval: Approval, **changes: str) -> dict[str, str]:
    words = {
        "decision": "approve",
        "reason": "One more round.",
        "request_digest": approval.request_digest,
    }
    return {**words, **changes}


def test_the_card_shows_the_facts_and_an_approver_grants_less(tower: Any, signed_in: Any) -> None:
    goal = run_to_limit(tower)
    approval = Approval.objects.get()
    browser = signed_in("approver")
    page = browser.get(f"/approvals/{approval.uid}").content.decode()
    for words in ("30.0 GPU-seconds", "unknown", "If denied", "expires <time"):
        assert words in page
    path = f"/approvals/{approval.uid}/answer"
    assert browser.post(path, answer_form(approval, grant="10")).status_code == 302
    approval.refresh_from_db()
    assert (approval.state, approval.answer) == ("approved", {"grant": 10_000})
    tower.reconcile(goal)
    assert goal.phase == "Running"
    page = browser.get(f"/approvals/{approval.uid}").content.decode()
    assert "10.0 GPU-seconds of 30.0 GPU-seconds asked" in page


def test_all_that_was_asked_is_not_less(tower: Any, signed_in: Any) -> None:
    run_to_limit(tower)
    approval = Approval.objects.get()
    browser = signed_in("approver")
    browser.post(f"/approvals/{approval.uid}/answer", answer_form(approval, grant="30"))
    approval.refresh_from_db()
    assert (approval.state, approval.answer) == ("approved", {})
    assert ">less<" not in browser.get("/approvals/decided").content.decode()


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"reason": ""}, 422, "Say why"),
        ({"reason": "   "}, 422, "Say why"),
        ({"grant": "31"}, 422, "at most 30 GPU-seconds"),
        ({"grant": "-1"}, 422, "More than 0"),
        ({"grant": "NaN"}, 422, "write a number"),
        ({"grant": "0.0000001"}, 422, "decimal places"),
        ({"decision": "maybe"}, 422, "choose one of those offered"),
        ({"request_digest": "sha256:" + "0" * 64}, 409, "look at it again"),
    ],
)
def test_a_bad_answer_changes_nothing(
    tower: Any, signed_in: Any, changes: dict[str, str], status: int, words: str
) -> None:
    run_to_limit(tower)
    approval = Approval.objects.get()
    answer = signed_in("approver").post(
        f"/approvals/{approval.uid}/answer", answer_form(approval, **changes)
    )
    assert answer.status_code == status
    assert words in answer.content.decode()
    approval.refresh_from_db()
    assert approval.state == "pending"


def test_who_comes_too_late_sees_who_decided(tower: Any, signed_in: Any, people: Any) -> None:
    run_to_limit(tower)
    approval = Approval.objects.get()
    path = f"/approvals/{approval.uid}/answer"
    assert signed_in("admin").post(path, answer_form(approval, decision="deny")).status_code == 302
    late = signed_in("approver").post(path, answer_form(approval), headers={"HX-Request": "true"})
    text = late.content.decode()
    assert late.status_code == 409
    assert "admin already denied this" in text
    assert text.lstrip().startswith("<article")
    assert "Your answer" not in text


def test_who_asked_may_not_decide_and_reads_why(tower: Any, signed_in: Any, people: Any) -> None:
    from governance.models import Membership

    run_to_limit(tower)
    approval = Approval.objects.get()
    viewer = signed_in("viewer").get(f"/approvals/{approval.uid}").content.decode()
    assert "needs the role approver" in viewer
    Membership.objects.create(user=people["operator"], namespace="default", role="approver")
    browser = signed_in("operator")
    assert "four eyes" in browser.get(f"/approvals/{approval.uid}").content.decode()
    answer = browser.post(f"/approvals/{approval.uid}/answer", answer_form(approval))
    assert answer.status_code == 403
    approval.refresh_from_db()
    assert approval.state == "pending"


def test_the_inbox_is_ordered_by_expiry(tower: Any, signed_in: Any) -> None:
    import datetime as dt

    tower.register("profiler")
    for name in ("later", "sooner"):
        tower.reconcile(tower.apply(name, more="requireApproval: true").goal)
    soon = Approval.objects.get(title__endswith="sooner")
    Approval.objects.filter(pk=soon.pk).update(expires_at=soon.expires_at - dt.timedelta(hours=1))
    page = signed_in("approver").get("/approvals").content.decode()
    assert page.index("default/sooner") < page.index("default/later")
    assert 'id="pending-count">2<' in page


# --- journal ------------------------------------------------------------------------------------


def test_the_journal_is_searched(tower: Any, signed_in: Any) -> None:
    from governance.services.checkpoints import make_checkpoint

    goal = run_to_limit(tower)
    browser = signed_in("auditor")
    created = JournalRecord.objects.get(action="goal.created")

    def seqs(query: str) -> list[int]:
        page = browser.get(f"/journal?{query}").content.decode()
        return [int(text) for text in re.findall(r'id="record-(\d+)"', page)]

    assert seqs("action=goal.created") == [created.seq]
    assert seqs(f"hash={created.hash[:12]}") == [created.seq]
    assert seqs(f"seq={created.seq}") == [created.seq]
    assert created.seq in seqs(f"goal={goal.uid}&actor=operator")
    assert seqs("goal=rogue&action=goal.created") == [created.seq]
    assert seqs("actor=nobody") == []
    assert browser.get("/journal?hash=XYZ").status_code == 422
    assert browser.get("/journal?seq=-1").status_code == 422
    assert "no checkpoint is signed yet" in browser.get("/journal").content.decode()
    make_checkpoint()
    assert "covers the head" in browser.get("/journal").content.decode()
    page = browser.get(f"/journal/{created.seq}").content.decode()
    assert created.hash in page
    assert "&quot;prev&quot;" in page


def test_a_decision_shows_the_line_of_policy_and_its_input(tower: Any, signed_in: Any) -> None:
    from governance.models import Decision

    tower.register("greedy", gpus=3, role="experimental")
    tower.reconcile(tower.apply(agents="greedy").goal)
    decision = Decision.objects.filter(outcome="deny").first()
    browser = signed_in("viewer")
    page = browser.get(f"/decisions/{decision.uid}").content.decode()
    assert "starter version 1" in page
    assert 'class="line-number"' in page
    raw = browser.get(f"/decisions/{decision.uid}/input")
    assert raw.content.decode() == decision.input_canonical


# --- the shell ----------------------------------------------------------------------------------


def test_sign_in_and_out(people: Any) -> None:
    browser = Client(enforce_csrf_checks=False)
    wrong = browser.post("/login", {"username": "viewer", "password": "wrong"})
    assert wrong.status_code == 422
    unknown = browser.post("/login", {"username": "nobody", "password": "wrong"})
    assert b"The name or the password is wrong." in wrong.content
    assert b"The name or the password is wrong." in unknown.content
    words = {"username": "viewer", "password": "correct horse battery", "next": "/journal"}
    right = browser.post("/login", words)
    assert (right.status_code, right["Location"]) == (302, "/journal")
    cookie = browser.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert browser.post("/logout")["Location"] == "/login"
    assert browser.get("/goals").status_code == 302


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test", "\\\\evil.test", "goals"])
def test_sign_in_leads_nowhere_else(people: Any, target: str) -> None:
    words = {"username": "viewer", "password": "correct horse battery", "next": target}
    assert Client().post("/login", words)["Location"] == "/"


def test_too_many_failures_close_the_door_even_to_the_right_password(people: Any) -> None:
    for _ in range(10):
        Client().post("/login", {"username": "viewer", "password": "wrong"})
    words = {"username": "viewer", "password": "correct horse battery"}
    answer = Client().post("/login", words)
    assert answer.status_code == 429
    assert b"Too many failed sign-ins" in answer.content


def test_forms_need_the_csrf_token(tower: Any, people: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(people["operator"])
    for path in ("/goals/new", "/logout", "/theme", "/tokens"):
        assert browser.post(path, {}).status_code == 403


def test_the_theme_is_kept_in_a_cookie_and_drawn_by_the_server(signed_in: Any) -> None:
    browser = signed_in("viewer")
    assert 'data-theme="system"' in browser.get("/goals").content.decode()
    assert browser.post("/theme", {"theme": "dark", "next": "/goals"})["Location"] == "/goals"
    assert 'data-theme="dark"' in browser.get("/goals").content.decode()
    assert browser.post("/theme", {"theme": "pink"}).status_code == 422
    browser.cookies["theme"] = '"><script>'
    assert 'data-theme="system"' in browser.get("/goals").content.decode()


def test_health_needs_no_session(db: None) -> None:
    assert Client().get("/healthz").json() == {"status": "ok"}


def test_an_unknown_page_is_a_page(signed_in: Any) -> None:
    answer = signed_in("viewer").get("/nowhere")
    assert answer.status_code == 404
    assert b"There is no such page" in answer.content


def test_a_token_is_shown_once_listed_and_revoked(signed_in: Any, people: Any) -> None:
    from governance.models import ApiToken
    from governance.services.tokens import authenticate_token

    browser = signed_in("operator")
    words = {"name": "ci", "permissions": ["view"], "namespace": "default", "days": "7"}
    made = browser.post("/tokens", words)
    (text,) = re.findall(r"clearance_pat_[\w-]+", made.content.decode())
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    assert authenticate_token(text) is not None
    assert text not in browser.get("/tokens").content.decode()
    assert browser.post("/tokens", {**words, "days": "0"}).status_code == 422
    assert browser.post("/tokens", {**words, "namespace": "NO!"}).status_code == 422
    token = ApiToken.objects.get()
    assert signed_in("viewer").post(f"/tokens/{token.uid}/revoke").status_code == 404
    assert browser.post(f"/tokens/{token.uid}/revoke").status_code == 302
    assert authenticate_token(text) is None


def test_a_person_without_any_role_sees_nothing(tower: Any) -> None:
    goal = run_to_limit(tower)
    stranger = User.objects.create_user(username="stranger", password="correct horse battery")
    browser = Client()
    browser.force_login(stranger)
    assert browser.get(f"/goals/default/{goal.name}").status_code == 404
    assert "rogue" not in browser.get("/goals").content.decode()
    assert "rogue" not in browser.get("/approvals").content.decode()
