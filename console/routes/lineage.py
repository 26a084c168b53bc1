"""Lineage: the explorer, releases, artifacts."""

from django.urls import URLPattern, path

from goals.views import lineage, releases

urlpatterns: list[URLPattern] = [
    path("lineage", lineage.explorer, name="lineage"),
    path("lineage/names", lineage.completions, name="lineage_completions"),
    path("releases", releases.release_list, name="release_list"),
    path("releases/<uuid:uid>", releases.release_detail, name="release_detail"),
    path("releases/<uuid:uid>/rollback", releases.release_rollback, name="release_rollback"),
    path("artifacts/<digest:digest>", releases.artifact_detail, name="artifact_detail"),
    path("artifacts/<digest:digest>/recall", releases.artifact_recall, name="artifact_recall"),
    path("artifacts/<digest:digest>/lift-recall", releases.artifact_lift, name="artifact_lift"),
    path("artifacts/<digest:digest>/<slug:kind>", releases.artifact_bundle, name="artifact_bundle"),
]
