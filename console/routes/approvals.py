"""The approval queue."""

from django.urls import URLPattern, path

from governance.views import approvals

urlpatterns: list[URLPattern] = [
    path("approvals", approvals.approval_list, name="approval_list"),
    path("approvals/<uuid:uid>", approvals.approval_detail, name="approval_detail"),
    path("approvals/<uuid:uid>/answer", approvals.approval_answer, name="approval_answer"),
]
