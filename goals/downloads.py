"""Evidence packs as downloads: their names and headers."""

import datetime as dt

from django.http import HttpResponse

from lineage.evidence.base import EVERY_NAMESPACE


def pack_name(namespace: str, since: dt.datetime) -> str:
    """The file name of a pack of a time, without its ending."""
    where = "journal" if namespace == EVERY_NAMESPACE else namespace
    return f"{where}-{since.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}"


def pack_response(content: bytes, *, name: str) -> HttpResponse:
    """A pack as a download."""
    response = HttpResponse(content, content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{name}-evidence.zip"'
    response["Cache-Control"] = "no-store"
    return response
