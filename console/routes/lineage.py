"""Releases and artifacts."""

from django.urls import URLPattern, path

from goals.views import releases

urlpatterns: list[URLPattern] = [
    path("releases", releases.release_list, name="release_list"),
    path("releases/<uuid:uid>", releases.release_detail, name="release_detail"),
    path("releases/<uuid:uid>/rollback", releases.release_rollback, name="release_rollback"),
    path("artifacts/<digest:digest>", releases.artifact_detail, name="artifact_detail"),
    path("artifacts/<digest:digest>/<slug:kind>", releases.artifact_bundle, name="artifact_bundle"),
]
