"""Pages of the kill switch: what it would hit, the confirm, what stands and how to lift it."""

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from agents.domain.metadata import DEFAULT_NAMESPACE
from goals.domain.killing import KillScope, KillTarget
from goals.forms import KillForm, LiftForm
from goals.services.kill import (
    EFFECTIVE_SECONDS,
    Kill,
    find_target,
    get_visible_switch,
    lift_switch,
    preview_kill,
    throw_switch,
    visible_switches,
)
from governance.access import AccessError, NotVisible, Principal
from governance.domain import EVERY_NAMESPACE, Permission
from governance.sessions import session_principal

SWITCHES_SHOWN = 20
SCOPES = (  # key, word, what it is for
    (KillScope.AGENT, "a", "Agent", "One registered agent, in whatever Goals it runs."),
    (KillScope.GOAL, "g", "Goal", "One Goal and its sub-goals; they are cancelled."),
    (KillScope.NAMESPACE, "n", "Namespace", "Every Goal and agent of a namespace."),
    (KillScope.EVERYTHING, "e", "Everything", "Every agent of every namespace."),
)


@never_cache
@require_http_methods(["GET", "POST"])
def kill_switch(request: HttpRequest) -> HttpResponse:
    """Choose what to end, see what that hits, throw the switch."""
    principal = session_principal(request)
    if request.method == "GET":
        is_named = {"namespace", "name"} & request.GET.keys()
        is_asked = is_named or request.GET.get("scope") == KillScope.EVERYTHING
        asked = request.GET if is_asked else None
        first = {
            "scope": request.GET.get("scope", KillScope.GOAL),
            "namespace": _usual_namespace(principal),
        }
        return _page(request, principal, KillForm(asked, initial=first))
    form = KillForm(request.POST)
    if not form.is_valid():
        return _page(request, principal, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    target = _target(principal, form.cleaned_data)
    kill = throw_switch(target, principal=principal, reason=form.cleaned_data["reason"])
    _say(request, kill)
    return redirect("tower")


@require_POST
def kill_switch_lift(request: HttpRequest, uid: UUID) -> HttpResponse:
    """Let things start again."""
    principal = session_principal(request)
    switch = get_visible_switch(principal, uid)
    form = LiftForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    lift_switch(switch, principal=principal, reason=reason)
    messages.success(request, f"The {switch} is lifted: things may start again.")
    return redirect("kill_switch")


def _page(
    request: HttpRequest, principal: Principal, form: KillForm, *, status: int = HTTPStatus.OK
) -> HttpResponse:
    context: dict[str, Any] = {"form": form, "scopes": SCOPES, "nav": "tower"}
    if form.is_bound and form.is_valid():
        try:
            target = _target(principal, form.cleaned_data)
            context |= {"target": target, "preview": preview_kill(target, principal=principal)}
        except NotVisible as error:
            form.add_error(_misnamed(principal, form.cleaned_data), str(error))
            status = HTTPStatus.NOT_FOUND
        except AccessError as error:
            form.add_error("scope", str(error))
            status = HTTPStatus.FORBIDDEN
    elif form.is_bound:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    standing = visible_switches(principal).filter(lifted_at__isnull=True)
    context["standing"] = [
        (one, principal.may(Permission.OPERATE, namespace=one.namespace or EVERY_NAMESPACE))
        for one in standing[:SWITCHES_SHOWN]
    ]
    context["past"] = list(
        visible_switches(principal).filter(lifted_at__isnull=False)[:SWITCHES_SHOWN]
    )
    return render(request, "console/tower_kill.html", context, status=status)


def _usual_namespace(principal: Principal) -> str:
    """Where the person steers things: `default` where that is one of the places."""
    spaces = principal.namespaces(Permission.OPERATE)
    if spaces is None or DEFAULT_NAMESPACE in spaces:
        return DEFAULT_NAMESPACE
    return min(spaces, default="")


def _misnamed(principal: Principal, wanted: dict[str, Any]) -> str:
    """The field to correct, when what was named is not there or not to be seen."""
    is_whole = wanted["scope"] == KillScope.NAMESPACE
    namespace = wanted["namespace"]
    if is_whole or (namespace and not principal.may(Permission.VIEW, namespace=namespace)):
        return "namespace"
    return "name"


def _target(principal: Principal, wanted: dict[str, Any]) -> KillTarget:
    return find_target(
        principal, scope=wanted["scope"], namespace=wanted["namespace"], name=wanted["name"]
    )


def _say(request: HttpRequest, kill: Kill) -> None:
    target = kill.switch.kill_target
    left = len(kill.running) + len(kill.problems)
    if left:
        words = f"{target}: {left} of {left + kill.stopped} have not ended yet; throw it again."
        messages.error(request, words)
        return
    late = "" if kill.seconds <= EFFECTIVE_SECONDS else ", later than promised"
    agents = f"{kill.stopped} agent{'' if kill.stopped == 1 else 's'}"
    messages.success(
        request, f"Kill switch thrown over {target}: {agents} ended in {kill.seconds:.2f} s{late}."
    )
