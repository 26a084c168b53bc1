"""Agents and their attempts."""

from django.urls import URLPattern, path

from goals.views import agents, fleet

urlpatterns: list[URLPattern] = [
    path("attempts/<uuid:uid>", fleet.attempt_detail, name="attempt_detail"),
    path("attempts/<uuid:uid>/revoke", agents.attempt_revoke, name="attempt_revoke"),
    path("agents", fleet.agent_list, name="agent_list"),
    path("agents/<uuid:uid>", agents.agent_by_uid, name="agent_by_uid"),
    path("agents/<str:namespace>/<str:name>", agents.agent_detail, name="agent_detail"),
    path("agents/<str:namespace>/<str:name>/revoke", agents.agent_revoke, name="agent_revoke"),
]
