"""Policies and what they would have decided."""

from django.urls import URLPattern, path

from governance.views import policies

urlpatterns: list[URLPattern] = [
    path("policies", policies.policy_list, name="policy_list"),
    path("policies/new", policies.policy_new, name="policy_new"),
    path("policies/<slug:name>/return", policies.policy_return, name="policy_return"),
    path("policies/<slug:name>/<int:number>", policies.policy_detail, name="policy_detail"),
    path(
        "policies/<slug:name>/<int:number>/export/<str:form>",
        policies.policy_export,
        name="policy_export",
    ),
    path("policies/<slug:name>/<int:number>/stage", policies.policy_stage, name="policy_stage"),
    path("policies/<slug:name>/<int:number>/work", policies.policy_work, name="policy_work"),
]
