"""Every websocket of the product, behind the session and the check of the origin."""

from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

from console.consumers import BEAT_SECONDS, HintConsumer
from console.live.socket import fleet_socket


def socket_application(*, beat_seconds: float = BEAT_SECONDS) -> Any:
    """The ASGI application of scope `websocket`."""
    routes = URLRouter(
        [
            path("ws/hints", HintConsumer.as_asgi(beat_seconds=beat_seconds)),
            path("ws/fleet", fleet_socket),  # type: ignore[arg-type]  # ASGI, not a view
        ]
    )
    return AllowedHostsOriginValidator(AuthMiddlewareStack(routes))
