"""Every URL of the product."""

from django.urls import URLPattern, URLResolver, path, register_converter

from console import views
from console.api import api
from console.live.page import tower
from goals.views import fleet, goal_detail, goal_list, releases, trace
from governance.views import approvals, journal, policies, tokens

UUID_PATTERN = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NAME_PATTERN = "[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"


class GoalConverter:
    """A Goal in a URL: its uid, or its namespace and name."""

    regex = f"(?:{UUID_PATTERN}|(?!{UUID_PATTERN}/){NAME_PATTERN}/{NAME_PATTERN})"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: object) -> str:
        return str(value)


class DigestConverter:
    """A digest in a URL."""

    regex = "sha256:[0-9a-f]{64}"

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


class SpanConverter(DigestConverter):
    """A span id in a URL."""

    regex = "[0-9a-f]{16}"


register_converter(GoalConverter, "goal")
register_converter(DigestConverter, "digest")
register_converter(SpanConverter, "span")

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.index, name="index"),
    path("tower", tower, name="tower"),
    path("login", views.sign_in, name="login"),
    path("logout", views.sign_out, name="logout"),
    path("theme", views.set_theme, name="theme"),
    path("healthz", views.health, name="healthz"),
    path("api/v1/", api.urls),
    path("goals", goal_list.goal_list, name="goal_list"),
    path("goals/new", goal_list.goal_new, name="goal_new"),
    path("goals/<goal:reference>", goal_detail.goal_detail, name="goal_detail"),
    path("goals/<goal:reference>/steer", goal_detail.goal_steer, name="goal_steer"),
    path("goals/<goal:reference>/ledger", goal_detail.goal_ledger, name="goal_ledger"),
    path("goals/<goal:reference>/attempts", goal_detail.goal_attempts, name="goal_attempts"),
    path("goals/<goal:reference>/decisions", goal_detail.goal_decisions, name="goal_decisions"),
    path("goals/<goal:reference>/lineage", goal_detail.goal_lineage, name="goal_lineage"),
    path("goals/<goal:reference>/journal", goal_detail.goal_journal, name="goal_journal"),
    path("goals/<goal:reference>/trace", trace.goal_trace, name="goal_trace"),
    path("goals/<goal:reference>/trace/<span:span_id>", trace.goal_trace, name="goal_span"),
    path("spans/<span:span_id>", trace.span_detail, name="span_detail"),
    path("attempts/<uuid:uid>", fleet.attempt_detail, name="attempt_detail"),
    path("agents", fleet.agent_list, name="agent_list"),
    path("releases", releases.release_list, name="release_list"),
    path("releases/<uuid:uid>", releases.release_detail, name="release_detail"),
    path("releases/<uuid:uid>/rollback", releases.release_rollback, name="release_rollback"),
    path("artifacts/<digest:digest>", releases.artifact_detail, name="artifact_detail"),
    path("artifacts/<digest:digest>/<slug:kind>", releases.artifact_bundle, name="artifact_bundle"),
    path("approvals", approvals.approval_list, name="approval_list"),
    path("approvals/<uuid:uid>", approvals.approval_detail, name="approval_detail"),
    path("approvals/<uuid:uid>/answer", approvals.approval_answer, name="approval_answer"),
    path("policies", policies.policy_list, name="policy_list"),
    path("policies/new", policies.policy_new, name="policy_new"),
    path("policies/<slug:name>/return", policies.policy_return, name="policy_return"),
    path("policies/<slug:name>/<int:number>", policies.policy_detail, name="policy_detail"),
    path("policies/<slug:name>/<int:number>/stage", policies.policy_stage, name="policy_stage"),
    path("policies/<slug:name>/<int:number>/work", policies.policy_work, name="policy_work"),
    path("journal", journal.record_list, name="record_list"),
    path("journal/<int:seq>", journal.record_detail, name="record_detail"),
    path("decisions/<uuid:uid>", journal.decision_detail, name="decision_detail"),
    path("decisions/<uuid:uid>/input", journal.decision_input, name="decision_input"),
    path("tokens", tokens.token_list, name="token_list"),
    path("tokens/<uuid:uid>/revoke", tokens.token_revoke, name="token_revoke"),
]

handler403 = "console.views.forbidden"
handler404 = "console.views.not_found"
handler500 = "console.views.server_error"
