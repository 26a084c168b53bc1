"""Every URL of the product."""

from django.urls import URLPattern, URLResolver, path

from console.api import api

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", api.urls),
]
