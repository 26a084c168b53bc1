"""The frame of every page: sign in and out, preferences, the palette, health, the API."""

from django.urls import URLPattern, URLResolver, path

from console import views
from console.api import api

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.index, name="index"),
    path("login", views.sign_in, name="login"),
    path("logout", views.sign_out, name="logout"),
    path("theme", views.set_theme, name="theme"),
    path("keys", views.set_keys, name="keys"),
    path("palette", views.palette, name="palette"),
    path("approvals/pending-count", views.pending_count, name="pending_count"),
    path("healthz", views.health, name="healthz"),
    path("api/v1/", api.urls),
]
