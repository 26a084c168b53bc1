"""Every page of the console in one table: where it is when full, empty and in error.

`tests.browser.test_axe` walks it, and fails for a route that is neither a page of it nor in
`NOT_PAGES` with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NOBODY: Final = "f" * 8 + "-ffff-4fff-8fff-" + "f" * 12  # no row has this uid
NO_DIGEST: Final = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who goes where. `{name}` in the path is a fact of the site."""

    path: str
    who: str = "ada"
    store: str = "up"  # "down": the telemetry store does not answer
    status: int = 200
    or_status: int = 0  # a form that checks itself first may answer with either
    press: str = ""  # the name of a button to press then: an empty form is refused

    def url(self, facts: Mapping[str, str]) -> str:
        return self.path.format_map(facts)


@dataclass(frozen=True, slots=True)
class Page:
    """One page by the names of its routes, and how it is found in its three states."""

    routes: tuple[str, ...]
    full: Visit
    empty: Visit
    error: Visit


def listed(route: str, path: str, *, error: Visit | None = None) -> Page:
    """A list: `nora` has nothing on it, `zoe` no right to it."""
    wrong = error or Visit(path=path, who="zoe")
    return Page((route,), Visit(path=path), Visit(path=path, who="nora"), wrong)


def detail(
    route: str, full: str, missing: str, *, empty: str = "", error: Visit | None = None
) -> Page:
    """One thing: `empty` is one of which there is little to say."""
    wrong = error or Visit(path=missing, status=404)
    return Page((route,), Visit(path=full), Visit(path=empty or full), wrong)


def goal_tab(route: str, tab: str, *, error: Visit | None = None) -> Page:
    """A part of a Goal; `bare_goal` is one to which nothing happened."""
    return detail(
        route, f"/goals/{{goal}}{tab}", f"/goals/default/no-such-goal{tab}",
        empty=f"/goals/{{bare_goal}}{tab}", error=error,
    )  # fmt: skip


def store_down(path: str, *, status: int = 200) -> Visit:
    return Visit(path=path, store="down", status=status)


PAGES: Final = (
    Page(
        ("login",),
        Visit(path="/login", who=""),
        Visit(path="/login?next=/goals", who=""),
        Visit(path="/login", who="", press="Sign in", status=422),
    ),
    listed("tower", "/tower"),
    Page(
        ("kill_switch",),
        Visit(path="/kill?scope=goal&namespace=default&name={goal_name}"),
        Visit(path="/kill"),
        Visit(path="/kill?scope=goal&namespace=default&name=no-such-goal", status=404),
    ),
    listed("gpu_list", "/gpus"),
    detail("gpu_detail", "/gpus/{gpu}", "/gpus/n1/none", empty="/gpus/{idle_gpu}"),
    listed("catalogue_list", "/catalogue"),
    detail(
        "catalogue_detail",
        "/catalogue/{workload}",
        f"/catalogue/{NOBODY}",
        empty="/catalogue/{quiet_workload}",
    ),
    listed("goal_list", "/goals"),
    Page(
        ("goal_new",),
        Visit(path="/goals/new"),
        Visit(path="/goals/new", who="nora"),
        Visit(path="/goals/new", press="Apply", status=422, or_status=200),
    ),
    goal_tab("goal_detail", "", error=store_down("/goals/{goal}")),
    detail(
        "goal_edit",
        "/goals/{goal}/edit",
        "/goals/default/no-such-goal/edit",
        empty="/goals/{bare_goal}/edit",
    ),
    goal_tab("goal_ledger", "/ledger"),
    goal_tab("goal_attempts", "/attempts"),
    goal_tab("goal_decisions", "/decisions"),
    goal_tab("goal_changes", "/changes"),
    goal_tab("goal_lineage", "/lineage"),
    goal_tab("goal_journal", "/journal"),
    goal_tab("goal_trace", "/trace", error=store_down("/goals/{goal}/trace", status=503)),
    detail(
        "goal_span",
        "/goals/{goal}/trace/{span}",
        "/goals/{goal}/trace/" + "0" * 16,
        error=store_down("/goals/{goal}/trace/{span}", status=503),
    ),
    listed("approval_list", "/approvals"),
    listed("approval_decided", "/approvals/decided"),
    Page(
        ("approval_bulk",),
        Visit(path="/approvals/bulk?uid={waiting}", who="eva"),
        Visit(path="/approvals/bulk"),
        Visit(path="/approvals/bulk?uid=none&uid={decided}"),
    ),
    Page(
        ("delegation_list",),
        Visit(path="/approvals/delegations"),
        Visit(path="/approvals/delegations", who="nora"),
        Visit(path="/approvals/delegations", press="Lend", status=422),
    ),
    detail(
        "approval_detail",
        "/approvals/{waiting}",
        f"/approvals/{NOBODY}",
        empty="/approvals/{decided}",
    ),
    listed("agent_list", "/agents"),
    detail("agent_detail", "/agents/{agent}", "/agents/default/none", empty="/agents/bare/spender"),
    detail("attempt_detail", "/attempts/{attempt}", f"/attempts/{NOBODY}"),
    listed("policy_list", "/policies"),
    Page(
        ("policy_new",),
        Visit(path="/policies/new"),
        Visit(path="/policies/new", who="pia"),
        Visit(path="/policies/new", who="zoe", status=403),
    ),
    detail(
        "policy_detail",
        "/policies/{policy}/1",
        "/policies/{policy}/999",
        empty="/policies/{policy}/2",
    ),
    listed("release_list", "/releases"),
    detail("release_detail", "/releases/{release}", f"/releases/{NOBODY}"),
    detail("artifact_detail", "/artifacts/{artifact}", f"/artifacts/{NO_DIGEST}"),
    Page(
        ("lineage",),
        Visit(path="/lineage?ask=approved&of={release}"),
        Visit(path="/lineage", who="nora"),
        Visit(path="/lineage?ask=touched&of=nothing-is-called-so", status=422),
    ),
    listed("audit", "/audit"),
    Page(
        ("record_list",),
        Visit(path="/journal?q=action:goal.created"),
        Visit(path="/journal?q=actor:nobody"),
        Visit(path="/journal?q=created:yesterday..never", status=422),
    ),
    Page(
        ("audit_verify",),
        Visit(path="/audit/verify"),
        Visit(path="/audit/verify", who="nora"),
        Visit(path="/audit/verify", press="Verify", status=422),
    ),
    listed("audit_packs", "/audit/packs"),
    detail("record_detail", "/journal/{record}", "/journal/999999"),
    detail("decision_detail", "/decisions/{decision}", f"/decisions/{NOBODY}"),
    Page(
        ("people_list",),
        Visit(path="/people"),
        Visit(path="/people?q=nobody-is-called-so"),
        Visit(path="/people", press="Add", status=422),
    ),
    detail("person_detail", "/people/ada", "/people/nobody", empty="/people/zoe"),
    Page(
        ("profile",),
        Visit(path="/profile"),
        Visit(path="/profile", who="zoe"),
        Visit(path="/profile", press="Change password", status=422),
    ),
    Page(
        ("token_list",),
        Visit(path="/tokens"),
        Visit(path="/tokens", who="nora"),
        Visit(path="/tokens", press="Make a token", status=422),
    ),
)

# What answers with something else than a page, or with a page of the table after a POST.
NOT_PAGES: Final = {
    "index": "leads to another page",
    "logout": "POST",
    "theme": "POST",
    "keys": "POST",
    "palette": "JSON",
    "pending_count": "a part of every page",
    "goal_draft": "POST, JSON",
    "lineage_completions": "a part of a page",
    "healthz": "JSON",
    "catalogue_proposal": "a download",
    "catalogue_register": "POST",
    "catalogue_ignore": "POST",
    "catalogue_restore": "POST",
    "goal_steer": "POST",
    "agent_by_uid": "leads to the agent by its name",
    "entry_detail": "leads to the entry in its Goal's ledger",
    "span_detail": "leads to the span in its Goal",
    "approval_answer": "POST",
    "approval_ask": "POST",
    "approval_reply": "POST",
    "approval_standing": "a part of a page",
    "delegation_revoke": "POST",
    "kill_switch_lift": "POST",
    "person_activate": "POST",
    "person_deactivate": "POST",
    "person_reset": "POST",
    "person_roles": "POST",
    "person_sign_out": "POST",
    "profile_password": "POST",
    "session_end": "POST",
    "sessions_end_others": "POST",
    "attempt_revoke": "POST",
    "agent_revoke": "POST",
    "audit_suggestions": "a part of a page",
    "range_pack_make": "POST, a file",
    "policy_export": "a download",
    "audit_check": "a part of a page",
    "pack_make": "POST, a download",
    "goal_effects": "a part of a page",
    "tower_past": "a frame of the map",
    "policy_return": "POST",
    "policy_stage": "POST",
    "policy_work": "POST",
    "release_rollback": "POST",
    "artifact_bundle": "a download",
    "artifact_lift": "POST",
    "artifact_recall": "POST",
    "decision_input": "a download",
    "token_revoke": "POST",
}
