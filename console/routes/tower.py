"""The Tower: the live map of every agent run, the past of it, and the kill switch."""

from django.urls import URLPattern, path

from console.live.page import tower, tower_past
from goals.views import steer

urlpatterns: list[URLPattern] = [
    path("tower", tower, name="tower"),
    path("tower/past", tower_past, name="tower_past"),
    path("kill", steer.kill_switch, name="kill_switch"),
    path("kill/<uuid:uid>/lift", steer.kill_switch_lift, name="kill_switch_lift"),
]
