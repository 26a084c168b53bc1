"""The GPUs."""

from django.urls import URLPattern, path

from goals.views import gpus

urlpatterns: list[URLPattern] = [
    path("gpus", gpus.gpu_list, name="gpu_list"),
    path("gpus/<str:node>/<path:device>", gpus.gpu_detail, name="gpu_detail"),
]
