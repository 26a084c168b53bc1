"""The reviewed table of who may do what: one row for each method of each route and socket.

To add a route, add one `row(...)` to `TABLE`: its method, its route as the resolver writes it (the
failing test prints the row to add), and the rule that holds, from the rules below. A write needs a
body that is right but for the permission, or its validation answers everybody alike: `form=` for
pages, `json=` or `text=` for the API; give a function to build it from the `World` of the test.
Values of the route come from `World.value_of`; `path=` gives others.

What Django Ninja itself serves at `api/v1/` and `api/v1/openapi.json` holds nothing of anybody.

Outcomes: `ok` let through (also when the state then refuses it: 409, 422, 402), `401` must sign in
(a page redirects to the sign-in), `403` may not, `404` as good as missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from governance.domain import Role

OK, SIGN_IN, FORBIDDEN, HIDDEN = "ok", "401", "403", "404"

ROLES: Final = tuple(role.value for role in Role)  # each of them in namespace `default` alone
ELSEWHERE: Final = "elsewhere"  # has every role, but in namespace `other`
ROLELESS: Final = "roleless"  # signed in, without a role
ANONYMOUS: Final = "anonymous"
EXPIRED: Final = "expired"  # an administrator's session or token, past its end
AGENT: Final = "agent"  # the JWT-SVID of an attempt at work in `default`
VIEW_TOKEN: Final = "view_token"  # an administrator's API token that may only view; API alone
PRINCIPALS: Final = (*ROLES, ELSEWHERE, ROLELESS, ANONYMOUS, EXPIRED, AGENT, VIEW_TOKEN)


@dataclass(frozen=True, slots=True)
class Rule:
    """Who is let through, and how each of the others is refused."""

    roles: frozenset[str]
    refused: str = FORBIDDEN  # other roles of the same namespace
    elsewhere: str = HIDDEN  # every role of another namespace
    roleless: str = HIDDEN
    agent: str = FORBIDDEN
    is_open: bool = False  # needs no credential

    def outcome(self, principal: str, *, is_page: bool) -> str:
        """What this principal must get."""
        if self.is_open:
            return self.agent if principal == AGENT and not is_page else OK
        if principal in (ANONYMOUS, EXPIRED) or (principal == AGENT and is_page):
            return SIGN_IN
        special = {ELSEWHERE: self.elsewhere, ROLELESS: self.roleless, AGENT: self.agent}
        if principal in special:
            return special[principal]
        role = Role.VIEWER.value if principal == VIEW_TOKEN else principal
        return OK if role in self.roles else self.refused


def _roles(*roles: Role) -> frozenset[str]:
    return frozenset(role.value for role in roles)


EVERY_ROLE: Final = frozenset(ROLES)
OPEN: Final = Rule(EVERY_ROLE, is_open=True, agent=OK)
SIGNED_IN: Final = Rule(EVERY_ROLE, elsewhere=OK, roleless=OK)  # one's own, or filtered by rights
ALSO_AGENTS: Final = replace(SIGNED_IN, agent=OK)
VIEW: Final = Rule(EVERY_ROLE)
VIEW_ANYWHERE: Final = replace(VIEW, elsewhere=OK)
VIEW_OR_AGENT: Final = Rule(EVERY_ROLE, agent=OK)
VIEW_NAMED: Final = Rule(EVERY_ROLE, elsewhere=FORBIDDEN, roleless=FORBIDDEN)  # says a namespace
OPERATE: Final = Rule(_roles(Role.OPERATOR, Role.ADMIN))
# A namespace is named in the request: nothing is hidden by saying that one may not.
OPERATE_NAMED: Final = replace(OPERATE, elsewhere=FORBIDDEN, roleless=FORBIDDEN)
OPERATE_OR_AGENT: Final = replace(OPERATE_NAMED, agent=OK)
RECALL: Final = Rule(_roles(Role.OPERATOR, Role.POLICY_AUTHOR, Role.ADMIN))
APPROVE: Final = Rule(_roles(Role.APPROVER, Role.ADMIN))
APPROVE_NAMED: Final = replace(APPROVE, elsewhere=FORBIDDEN, roleless=FORBIDDEN)
# Policies hold for every namespace: whoever has the role anywhere may read, try and save them.
REVIEW_POLICY: Final = Rule(
    _roles(Role.POLICY_AUTHOR, Role.APPROVER, Role.AUDITOR, Role.ADMIN),
    elsewhere=OK,
    roleless=FORBIDDEN,
)
AUTHOR_POLICY: Final = Rule(
    _roles(Role.POLICY_AUTHOR, Role.ADMIN), elsewhere=OK, roleless=FORBIDDEN
)
# What judges every namespace is moved by who has a role in all of them: here an admin alone.
MOVE_POLICY: Final = Rule(_roles(Role.ADMIN), elsewhere=FORBIDDEN, roleless=FORBIDDEN)
ADMINISTER: Final = Rule(_roles(Role.ADMIN), elsewhere=FORBIDDEN, roleless=FORBIDDEN)
# Somebody else's, who asks for nothing here: not there but for an administrator.
OTHERS: Final = Rule(_roles(Role.ADMIN), refused=HIDDEN)
# A right that others lent each other is seen by all of the namespace, and not theirs to end.
LENT: Final = Rule(_roles(Role.ADMIN))
# The secret is in the request itself, and the one sent here is none: a bearer token adds nothing.
OWN_SECRET: Final = Rule(
    frozenset(), refused=SIGN_IN, elsewhere=SIGN_IN, roleless=SIGN_IN, agent=SIGN_IN
)
OPERATE_ANYWHERE: Final = replace(OPERATE, elsewhere=OK, roleless=FORBIDDEN)
# The chain is one over every namespace: whoever audits anywhere may have it verified.
AUDIT_ANYWHERE: Final = Rule(_roles(Role.AUDITOR, Role.ADMIN), elsewhere=OK, roleless=FORBIDDEN)
ANY_ROLE: Final = Rule(EVERY_ROLE, elsewhere=OK, roleless=FORBIDDEN)
AT_WORK: Final = Rule(
    frozenset(), elsewhere=FORBIDDEN, roleless=FORBIDDEN, agent=OK
)  # agents with their JWT-SVID

# Samplers by the token of their node; a person needs the role in all namespaces: here an admin.
NODES: Final = replace(MOVE_POLICY, agent=SIGN_IN)

Body = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One method of one route and the rule that holds there."""

    method: str
    route: str
    rule: Rule
    form: Body | None = None
    json: Body | None = None
    text: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.route

    @property
    def is_page(self) -> bool:
        return not self.route.startswith("api/")


def row(method: str, route: str, rule: Rule, **request: Any) -> Row:
    """A row of the table; see the module."""
    return Row(method, route, rule, **request)


REASON: Final = {"reason": "The table asks."}
DRAFT: Final = {"files": [{"path": "rule.rego", "source": "package clearance.graph\n"}]}
GRANT: Final = {"do": "give", "role": "viewer", "namespace": "shop"}
GOAL: Final = """
apiVersion: orchestration.ai/v1
kind: Goal
metadata: {name: asked, namespace: default}
spec: {objective: "loss < 0.1", budget: 1 GPU-minutes, agents: [tuner]}
"""


KILL: Final = {"scope": "goal", "namespace": "default", "name": "rogue", "reason": "It asks."}
RANGE: Final = {"since": "2026-01-01T00:00:00Z", "namespace": "default"}
QUESTION: Final = {"to": "operator", "text": "Why?"}
LEND: Final = {"to": "auditor", "namespace": "default", "until": "2100-01-01T00:00", **REASON}


def _answer(world: Any) -> Mapping[str, Any]:
    return {**REASON, "request_digest": world.approval.request_digest}


# Of several, each is judged by itself: everybody gets an answer that says what became of each.
def _seen(world: Any) -> Mapping[str, Any]:
    seen = f"{world.approval.uid} {world.approval.request_digest}"
    return {**REASON, "decision": "deny", "seen": seen}


def _several(world: Any) -> Mapping[str, Any]:
    one = {"uid": str(world.approval.uid), "request_digest": world.approval.request_digest}
    return {**REASON, "decision": "deny", "approvals": [one]}


def _steer(world: Any) -> Mapping[str, Any]:
    return {"step": "pause", "goals": [str(world.goal.uid)]}


TABLE: Final = (
    # --- The shell
    row("GET", "", SIGNED_IN),
    row("GET", "login", OPEN),
    row("POST", "login", OPEN),
    row("POST", "logout", SIGNED_IN),
    row("POST", "theme", OPEN, form={"theme": "dark"}),
    row("POST", "keys", OPEN, form={"keys": "off"}),
    row("GET", "palette", SIGNED_IN),
    row("GET", "approvals/pending-count", SIGNED_IN),
    row("GET", "healthz", OPEN),
    row("GET", "tower", SIGNED_IN),
    # --- Goals
    row("GET", "goals", SIGNED_IN),
    row("GET", "tower/past", replace(SIGNED_IN, roleless=HIDDEN)),
    row("GET", "kill", SIGNED_IN),
    row("POST", "kill", OPERATE, form=KILL),
    row("POST", "kill/<uuid:uid>/lift", OPERATE, form=REASON),
    row("GET", "goals/new", OPERATE_ANYWHERE),
    row("POST", "goals/new/draft", OPERATE_ANYWHERE, json={"text": GOAL}),
    row("GET", "goals/<goal:reference>/edit", OPERATE),
    row("POST", "goals/<goal:reference>/edit", OPERATE, form={"manifest": "x", "step": "apply"}),
    row("GET", "goals/<goal:reference>/changes", VIEW),
    row("GET", "goals/<goal:reference>/trace/<span:span_id>/effects", VIEW),
    row("POST", "goals/new", OPERATE_NAMED, form={"manifest": GOAL, "step": "apply"}),
    row("GET", "goals/<goal:reference>", VIEW),
    row("POST", "goals/<goal:reference>/steer", OPERATE, form={"do": "pause"}),
    row("GET", "goals/<goal:reference>/ledger", VIEW),
    row("GET", "goals/<goal:reference>/attempts", VIEW),
    row("GET", "goals/<goal:reference>/decisions", VIEW),
    row("GET", "goals/<goal:reference>/lineage", VIEW),
    row("GET", "goals/<goal:reference>/journal", VIEW),
    row("GET", "goals/<goal:reference>/trace", VIEW),
    row("GET", "goals/<goal:reference>/trace/<span:span_id>", VIEW),
    row("GET", "entries/<uuid:uid>", VIEW),
    row("GET", "spans/<span:span_id>", VIEW),
    # --- Approvals
    row("GET", "approvals", SIGNED_IN),
    row("GET", "approvals/decided", SIGNED_IN),
    row("GET", "approvals/bulk", SIGNED_IN),
    row("POST", "approvals/bulk", SIGNED_IN, form=_seen),
    row("GET", "approvals/delegations", SIGNED_IN),
    row("POST", "approvals/delegations", SIGNED_IN, form=LEND),
    row("POST", "approvals/delegations/<uuid:uid>/revoke", LENT),
    row("GET", "approvals/<uuid:uid>", VIEW),
    row("GET", "approvals/<uuid:uid>/standing", VIEW),
    row("POST", "approvals/<uuid:uid>/ask", APPROVE, form=QUESTION),
    row("POST", "approvals/<uuid:uid>/reply", OPERATE, form=QUESTION),
    row(
        "POST",
        "approvals/<uuid:uid>/answer",
        APPROVE,
        form=lambda world: {**_answer(world), "decision": "deny"},
    ),
    # --- Agents
    # --- GPUs: cards are everybody's who may see any namespace; who holds them is told by namespace
    row("GET", "gpus", SIGNED_IN),
    row("GET", "gpus/<str:node>/<path:device>", VIEW_ANYWHERE),
    row("GET", "catalogue", SIGNED_IN),
    row("GET", "catalogue/<uuid:uid>", VIEW),
    row("GET", "catalogue/<uuid:uid>/proposal", VIEW),
    row("POST", "catalogue/<uuid:uid>/register", OPERATE),
    row("POST", "catalogue/<uuid:uid>/ignore", OPERATE, form=REASON),
    row("POST", "catalogue/<uuid:uid>/restore", OPERATE),
    row("GET", "agents", SIGNED_IN),
    row("GET", "agents/<uuid:uid>", VIEW),
    row("GET", "agents/<str:namespace>/<str:name>", VIEW),
    row("POST", "agents/<str:namespace>/<str:name>/revoke", OPERATE, form=REASON),
    row("GET", "attempts/<uuid:uid>", VIEW),
    row("POST", "attempts/<uuid:uid>/revoke", OPERATE, form=REASON),
    # --- Policies
    row("GET", "policies", SIGNED_IN),
    row("GET", "policies/new", AUTHOR_POLICY),
    row("GET", "policies/<slug:name>/<int:number>", SIGNED_IN),
    row(
        "POST",
        "policies/<slug:name>/<int:number>/work",
        REVIEW_POLICY,
        form={
            "do": "check",
            "name": "starter",
            "base": "1",
            "path": "a.rego",
            "source": "package a",
        },
    ),
    row("GET", "policies/<slug:name>/<int:number>/export/<str:form>", SIGNED_IN),
    row(
        "POST",
        "policies/<slug:name>/<int:number>/stage",
        MOVE_POLICY,
        form={"stage": "shadow", "seen": "2"},
    ),
    row("POST", "policies/<slug:name>/return", MOVE_POLICY, form={"seen": "2"}),
    # --- Releases and artifacts
    row("GET", "releases", SIGNED_IN),
    row("GET", "releases/<uuid:uid>", VIEW),
    row("POST", "releases/<uuid:uid>/rollback", OPERATE, form=REASON),
    row("GET", "artifacts/<digest:digest>", VIEW),
    row("GET", "artifacts/<digest:digest>/<slug:kind>", VIEW),
    row("POST", "artifacts/<digest:digest>/recall", RECALL, form=REASON),
    row("POST", "artifacts/<digest:digest>/lift-recall", RECALL, form=REASON),
    row("GET", "lineage", SIGNED_IN),
    row("GET", "lineage/names", SIGNED_IN),
    # --- Journal
    row("GET", "audit", SIGNED_IN),
    row("GET", "audit/names", SIGNED_IN),
    row("POST", "audit/check", AUDIT_ANYWHERE),
    row("GET", "audit/verify", ANY_ROLE),
    row("POST", "audit/verify", ANY_ROLE, form={}),
    row("GET", "audit/packs", SIGNED_IN),
    row("POST", "audit/packs/range", VIEW_NAMED, form={"namespace": "default", "time": "1h"}),
    row("POST", "audit/packs/<goal:reference>", VIEW),
    row("GET", "journal", SIGNED_IN),
    row("GET", "journal/<int:seq>", VIEW),
    row("GET", "decisions/<uuid:uid>", VIEW),
    row("GET", "decisions/<uuid:uid>/input", VIEW),
    # --- People
    row("GET", "people", ADMINISTER),
    row("POST", "people", ADMINISTER, form={"username": "x", "role": "viewer", "namespace": "a"}),
    row("GET", "people/<str:username>", ADMINISTER),
    row("POST", "people/<str:username>/roles", ADMINISTER, form=GRANT),
    row("POST", "people/<str:username>/deactivate", ADMINISTER),
    row("POST", "people/<str:username>/activate", ADMINISTER),
    row("POST", "people/<str:username>/reset", ADMINISTER),
    row("POST", "people/<str:username>/sign-out", ADMINISTER),
    row("GET", "profile", SIGNED_IN),
    row("POST", "profile/password", SIGNED_IN, form={"old": "x", "new": "y", "again": "y"}),
    row("POST", "sessions/end-others", SIGNED_IN),
    row("POST", "sessions/<uuid:uid>/end", OTHERS),
    row("GET", "tokens", SIGNED_IN),
    row("POST", "tokens", SIGNED_IN, form={"name": "mine", "namespace": "*", "days": "1"}),
    row("POST", "tokens/<uuid:uid>/revoke", OTHERS),
    # --- The API: the frame
    row("GET", "api/v1/openapi.json", OPEN),
    row(
        "POST",
        "api/v1/login",
        OPEN,
        json={"username": "viewer", "password": "correct horse battery"},
    ),
    # --- The API: identities
    row("POST", "api/v1/identity/exchange", OWN_SECRET, json={"join_token": "x", "csr": "x"}),
    row("POST", "api/v1/identity/renew", replace(OWN_SECRET, agent=OK), json={"csr": "x"}),
    row("GET", "api/v1/identity/bundle", OPEN),
    # --- The API: Goals
    row("POST", "api/v1/apply", OPERATE_NAMED, text=GOAL),
    row("POST", "api/v1/plan", VIEW_NAMED, text=GOAL),
    row("GET", "api/v1/goals", SIGNED_IN),
    row("GET", "api/v1/goals/<path:reference>", VIEW),
    row("DELETE", "api/v1/goals/<path:reference>", OPERATE),
    row("GET", "api/v1/goals/<path:reference>/graph", VIEW),
    row("GET", "api/v1/goals/<path:reference>/tasks", VIEW),
    row("GET", "api/v1/goals/<path:reference>/ledger", VIEW),
    row("GET", "api/v1/goals/<path:reference>/spans", VIEW),
    row("GET", "api/v1/goals/<path:reference>/provenance", VIEW),
    row("GET", "api/v1/goals/<path:reference>/evidence", VIEW),
    row("POST", "api/v1/goals/<path:reference>/pause", OPERATE),
    row("POST", "api/v1/goals/<path:reference>/resume", OPERATE),
    row("POST", "api/v1/goals/<path:reference>/cancel", OPERATE, json=REASON),
    row("GET", "api/v1/prices", SIGNED_IN),
    row("POST", "api/v1/prices", ADMINISTER, json={"kind": "gpu", "name": "*", "micro_usd": 1}),
    row("GET", "api/v1/spans/<span_id>/causes", VIEW),
    row("GET", "api/v1/spans/<span_id>/effects", VIEW),
    row("GET", "api/v1/changes", VIEW_NAMED, query={"target": "/checkout"}),
    row("GET", "api/v1/why/<path:reference>", VIEW),
    # --- The API: agents and what they do at work
    row("GET", "api/v1/self", AT_WORK),
    row(
        "POST",
        "api/v1/self/reservations",
        AT_WORK,
        json={"unit": "tokens", "amount": 1, "key": "k"},
    ),
    row("PUT", "api/v1/self/outputs/<name>", AT_WORK, json={"value": 1}, path={"name": "tuned"}),
    row("GET", "api/v1/gpus", SIGNED_IN),
    row("PUT", "api/v1/nodes/<name>/gpus", NODES, json={"at": "2026-01-31T02:14:00Z"}),
    row("GET", "api/v1/catalogue", SIGNED_IN),
    row("GET", "api/v1/catalogue/<uid>", VIEW),
    row("GET", "api/v1/catalogue/<uid>/proposal", VIEW),
    row("POST", "api/v1/catalogue/<uid>/register", OPERATE),
    row("POST", "api/v1/catalogue/<uid>/ignore", OPERATE, json=REASON),
    row("POST", "api/v1/catalogue/<uid>/restore", OPERATE),
    row("GET", "api/v1/agents", SIGNED_IN),
    row("GET", "api/v1/agents/<namespace>/<name>", VIEW),
    row("GET", "api/v1/agents/<namespace>/<name>/drift", VIEW),
    row("POST", "api/v1/agents/<namespace>/<name>/revoke", OPERATE, json=REASON),
    row("GET", "api/v1/attempts", SIGNED_IN),
    row("GET", "api/v1/attempts/<uid>", VIEW),
    row("GET", "api/v1/attempts/<uid>/output", VIEW),
    row("POST", "api/v1/attempts/<uid>/revoke", OPERATE, json=REASON),
    # --- The API: artifacts and releases
    row("GET", "api/v1/artifacts", ALSO_AGENTS),
    row(
        "POST",
        "api/v1/artifacts",
        OPERATE_OR_AGENT,
        text="bytes",
        query={"kind": "file", "name": "f"},
    ),
    row("GET", "api/v1/artifacts/<digest>", VIEW_OR_AGENT),
    row("GET", "api/v1/artifacts/<digest>/content", VIEW_OR_AGENT),
    row("GET", "api/v1/artifacts/<digest>/content/<path:filename>", VIEW_OR_AGENT),
    row("GET", "api/v1/artifacts/<digest>/bundles", VIEW_OR_AGENT),
    row("POST", "api/v1/artifacts/<digest>/recall", RECALL, json=REASON),
    row("POST", "api/v1/artifacts/<digest>/lift-recall", RECALL, json=REASON),
    row(
        "POST",
        "api/v1/evidence",
        OPERATE_OR_AGENT,
        json=lambda world: {"name": "ab", "about": [world.artifact.digest], "predicate": {}},
    ),
    row("GET", "api/v1/releases", SIGNED_IN),
    row(
        "POST",
        "api/v1/releases",
        OPERATE_OR_AGENT,
        json=lambda world: {
            "service": "checkout",
            "environment": "canary",
            "digest": world.artifact.digest,
        },
    ),
    row(
        "GET",
        "api/v1/releases/current",
        replace(VIEW_NAMED, agent=OK),
        query={"service": "checkout", "environment": "canary"},
    ),
    row("POST", "api/v1/releases/<uid>/rollback", OPERATE, json=REASON),
    # --- The API: policies
    row("GET", "api/v1/bundles", SIGNED_IN),
    row("GET", "api/v1/bundles/<name>/versions", SIGNED_IN),
    row("POST", "api/v1/bundles/<name>/versions", AUTHOR_POLICY, json=DRAFT),
    row("GET", "api/v1/bundles/<name>/versions/<version>", SIGNED_IN),
    row("GET", "api/v1/bundles/<name>/versions/<version>/diff", SIGNED_IN, query={"base": "1"}),
    row(
        "GET",
        "api/v1/bundles/<name>/versions/<version>/export",
        SIGNED_IN,
        query={"form": "opa"},
    ),
    row(
        "POST",
        "api/v1/bundles/<name>/versions/<version>/stage",
        MOVE_POLICY,
        json={"stage": "shadow"},
    ),
    row("POST", "api/v1/bundles/<name>/return", MOVE_POLICY, json={}),
    row("POST", "api/v1/bundles/check", REVIEW_POLICY, json=DRAFT),
    row(
        "POST",
        "api/v1/bundles/evaluate",
        REVIEW_POLICY,
        json={**DRAFT, "point": "graph", "input": {}},
    ),
    row("POST", "api/v1/bundles/test", REVIEW_POLICY, json=DRAFT),
    row(
        "POST",
        "api/v1/bundles/impact",
        REVIEW_POLICY,
        json={**DRAFT, "name": "starter", "limit": 1},
    ),
    # --- The API: governance
    row("GET", "api/v1/approvals", SIGNED_IN),
    row("GET", "api/v1/approvals/inbox", SIGNED_IN),
    row("POST", "api/v1/approvals/answer", SIGNED_IN, json=_several),
    row(
        "POST",
        "api/v1/approvals/<uid>/degrade",
        APPROVE,
        json=lambda world: {**_answer(world), "degrade": {"gpus": 1}},
    ),
    row("POST", "api/v1/approvals/<uid>/ask", APPROVE, json=QUESTION),
    row("POST", "api/v1/approvals/<uid>/reply", OPERATE, json=QUESTION),
    row("GET", "api/v1/delegations", SIGNED_IN),
    row("POST", "api/v1/delegations", APPROVE_NAMED, json=LEND),
    row("DELETE", "api/v1/delegations/<uid>", LENT),
    row("POST", "api/v1/steer", SIGNED_IN, json=_steer),
    row("POST", "api/v1/kill", OPERATE, json=KILL),
    row("GET", "api/v1/kill-switches", SIGNED_IN),
    row("POST", "api/v1/kill-switches/<uid>/lift", OPERATE, json=REASON),
    row("GET", "api/v1/approvals/<uid>", VIEW),
    row("POST", "api/v1/approvals/<uid>/approve", APPROVE, json=_answer),
    row("POST", "api/v1/approvals/<uid>/deny", APPROVE, json=_answer),
    row("GET", "api/v1/decisions", SIGNED_IN),
    row("GET", "api/v1/decisions/<uid>", VIEW),
    row("GET", "api/v1/decisions/<uid>/input", VIEW),
    row("GET", "api/v1/journal", SIGNED_IN),
    row("GET", "api/v1/journal/checkpoints", SIGNED_IN),
    row("GET", "api/v1/journal/search", SIGNED_IN),
    row("GET", "api/v1/journal/verification", SIGNED_IN),
    row("POST", "api/v1/journal/verification", AUDIT_ANYWHERE, json={}),
    row("GET", "api/v1/packs", SIGNED_IN),
    row("POST", "api/v1/packs", VIEW_NAMED, json=RANGE),
    row("GET", "api/v1/journal/<int:seq>", VIEW),
    row("GET", "api/v1/users", ADMINISTER),
    row("POST", "api/v1/users", ADMINISTER, json={"username": "x"}),
    row("GET", "api/v1/users/<username>", ADMINISTER),
    row("POST", "api/v1/users/<username>/roles", ADMINISTER, json={"give": ["a:viewer"]}),
    row("POST", "api/v1/users/<username>/deactivate", ADMINISTER),
    row("POST", "api/v1/users/<username>/activate", ADMINISTER),
    row("POST", "api/v1/users/<username>/reset-password", ADMINISTER),
    row("GET", "api/v1/users/<username>/sessions", ADMINISTER),
    row("GET", "api/v1/sessions", SIGNED_IN),
    row("DELETE", "api/v1/sessions/<uid>", OTHERS),
    row("GET", "api/v1/tokens", SIGNED_IN),
    row("POST", "api/v1/tokens", SIGNED_IN, json={"name": "mine"}),
    row("DELETE", "api/v1/tokens/<uid>", OTHERS),
    # --- Websockets
    row("WS", "ws/hints", replace(SIGNED_IN, roleless=FORBIDDEN)),
    row("WS", "ws/fleet", replace(SIGNED_IN, roleless=FORBIDDEN)),
)
