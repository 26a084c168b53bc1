"""The console's addresses and some that fail as only a defect does; `test_incidents`."""

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import NinjaAPI

from console.api import _answer
from console.urls import handler400, handler403, handler404, handler500, urlpatterns

SECRET = "hunter2 of the traceback"

api = NinjaAPI(urls_namespace="broken", docs_url=None, openapi_url=None)
api.add_exception_handler(Exception, _answer)


def broken(request: HttpRequest) -> HttpResponse:
    """Fails with words that nobody outside may read."""
    raise RuntimeError(SECRET)


def doubtful(request: HttpRequest) -> HttpResponse:
    """Fails as a request does that no browser sends."""
    raise SuspiciousOperation(SECRET)


@api.get("/broken")
def broken_operation(request: HttpRequest) -> None:
    """Fails inside the API."""
    raise RuntimeError(SECRET)


urlpatterns = [
    *urlpatterns,
    path("broken", broken, name="broken"),
    path("doubtful", doubtful, name="doubtful"),
    path("api/broken/", api.urls),
    path("api/v1/broken-outside", broken, name="broken_outside"),
]
__all__ = ["handler400", "handler403", "handler404", "handler500", "urlpatterns"]
