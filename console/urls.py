"""Every URL of the product."""

from django.urls import URLPattern, URLResolver

from console.routes import (
    agents,
    approvals,
    audit,
    catalogue,
    goals,
    gpus,
    lineage,
    people,
    policies,
    shell,
    tower,
)

urlpatterns: list[URLPattern | URLResolver] = [
    *shell.urlpatterns,
    *tower.urlpatterns,
    *goals.urlpatterns,
    *approvals.urlpatterns,
    *agents.urlpatterns,
    *gpus.urlpatterns,
    *catalogue.urlpatterns,
    *policies.urlpatterns,
    *lineage.urlpatterns,
    *audit.urlpatterns,
    *people.urlpatterns,
]

handler400 = "console.views.bad_request"
handler403 = "console.views.forbidden"
handler404 = "console.views.not_found"
handler500 = "console.views.server_error"
