"""Pages of API tokens: make, list, revoke."""

import datetime as dt
from http import HTTPStatus
from uuid import UUID

from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from governance.export import table_export
from governance.forms import TokenForm
from governance.models import ApiToken
from governance.services.tokens import TokenInvalid, create_token, revoke_token
from governance.sessions import session_principal

COLUMNS = {
    name: name
    for name in (
        "uid", "name", "namespace", "permissions", "created_at", "expires_at", "last_used_at",
        "revoked_at",
    )
}  # fmt: skip


@never_cache
@require_http_methods(["GET", "POST"])
def token_list(request: HttpRequest) -> HttpResponse:
    """One's own tokens; the text of a new one is in this one answer and nowhere else."""
    if request.method == "GET":
        found = _tokens_of(request)
        if export := table_export(request, name="tokens", columns=COLUMNS, rows=found):
            return export
        return _page(request, TokenForm(initial={"namespace": "*", "days": 30}))
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _page(request, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    wanted = form.cleaned_data
    principal = session_principal(request)
    try:
        token, text = create_token(
            User.objects.get(username=principal.username),
            principal=principal,
            name=wanted["name"],
            permissions=wanted["permissions"],
            namespace=wanted["namespace"],
            life=dt.timedelta(days=wanted["days"]),
        )
    except TokenInvalid as error:
        form.add_error(None, str(error))
        return _page(request, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    fresh = TokenForm(initial={"namespace": "*", "days": 30})
    return _page(request, fresh, made=token, text=text, status=HTTPStatus.CREATED)


@require_POST
def token_revoke(request: HttpRequest, uid: UUID) -> HttpResponse:
    """End a token at once."""
    revoke_token(uid, principal=session_principal(request))
    return redirect("token_list")


def _page(
    request: HttpRequest,
    form: TokenForm,
    *,
    made: ApiToken | None = None,
    text: str = "",
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    context = {
        "form": form,
        "tokens": _tokens_of(request),
        "made": made,
        "text": text,
        "nav": "tokens",
    }
    return render(request, "governance/token_list.html", context, status=status)


def _tokens_of(request: HttpRequest) -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(user__username=session_principal(request).username)
