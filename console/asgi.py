"""The ASGI application: pages, API and websockets."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
http_application = get_asgi_application()  # loads the apps, which the imports below need

from console.body_limit import BodyLimit  # noqa: E402 - needs loaded apps
from console.consumers import HintConsumer  # noqa: E402 - needs loaded apps

application = ProtocolTypeRouter(
    {
        "http": BodyLimit(http_application),
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/hints", HintConsumer.as_asgi())]))
        ),
    }
)
