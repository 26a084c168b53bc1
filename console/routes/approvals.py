"""The approval queue."""

from django.urls import URLPattern, path

from governance.views import approval_steps, approvals

urlpatterns: list[URLPattern] = [
    path("approvals", approvals.approval_list, name="approval_list"),
    path("approvals/decided", approvals.approval_decided, name="approval_decided"),
    path("approvals/bulk", approval_steps.approval_bulk, name="approval_bulk"),
    path("approvals/delegations", approval_steps.delegation_list, name="delegation_list"),
    path(
        "approvals/delegations/<uuid:uid>/revoke",
        approval_steps.delegation_revoke,
        name="delegation_revoke",
    ),
    path("approvals/<uuid:uid>", approvals.approval_detail, name="approval_detail"),
    path("approvals/<uuid:uid>/standing", approvals.approval_standing, name="approval_standing"),
    path("approvals/<uuid:uid>/answer", approvals.approval_answer, name="approval_answer"),
    path("approvals/<uuid:uid>/ask", approval_steps.approval_ask, name="approval_ask"),
    path("approvals/<uuid:uid>/reply", approval_steps.approval_reply, name="approval_reply"),
]
