"""The ASGI application: pages, API and websockets."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
http_application = get_asgi_application()  # loads the apps, which the imports below need

from console.body_limit import BodyLimit  # noqa: E402 - needs loaded apps
from console.sockets import socket_application  # noqa: E402 - needs loaded apps
from console.upload_credential import is_credential_held  # noqa: E402 - needs loaded apps

application = ProtocolTypeRouter(
    {
        "http": BodyLimit(http_application, is_held=is_credential_held),
        "websocket": socket_application(),
    }
)
