"""The frame of every page: sign in and out, the theme, health, the API."""

from django.urls import URLPattern, URLResolver, path

from console import views
from console.api import api

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.index, name="index"),
    path("login", views.sign_in, name="login"),
    path("logout", views.sign_out, name="logout"),
    path("theme", views.set_theme, name="theme"),
    path("healthz", views.health, name="healthz"),
    path("api/v1/", api.urls),
]
