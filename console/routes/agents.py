"""Agents and their attempts."""

from django.urls import URLPattern, path

from goals.views import fleet

urlpatterns: list[URLPattern] = [
    path("attempts/<uuid:uid>", fleet.attempt_detail, name="attempt_detail"),
    path("agents", fleet.agent_list, name="agent_list"),
]
