"""The Tower: the live map of every agent run."""

from django.urls import URLPattern, path

from console.live.page import tower

urlpatterns: list[URLPattern] = [
    path("tower", tower, name="tower"),
]
