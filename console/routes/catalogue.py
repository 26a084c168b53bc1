"""The catalogue of what runs in the cluster."""

from django.urls import URLPattern, path

from goals.views import catalogue

urlpatterns: list[URLPattern] = [
    path("catalogue", catalogue.catalogue_list, name="catalogue_list"),
    path("catalogue/<uuid:uid>", catalogue.catalogue_detail, name="catalogue_detail"),
    path("catalogue/<uuid:uid>/proposal", catalogue.catalogue_proposal, name="catalogue_proposal"),
    path("catalogue/<uuid:uid>/register", catalogue.catalogue_register, name="catalogue_register"),
    path("catalogue/<uuid:uid>/ignore", catalogue.catalogue_ignore, name="catalogue_ignore"),
    path("catalogue/<uuid:uid>/restore", catalogue.catalogue_restore, name="catalogue_restore"),
]
