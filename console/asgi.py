"""The ASGI application: pages, API and websockets."""

import gc
import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
from django.urls import get_resolver

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

_ = get_resolver().url_patterns  # every page is loaded now, not for the first who asks for one
gc.collect()
# What is loaded stays. A full collection walked its 170,000 objects, and once in some dozens of
# requests one of them waited 100 ms for that.
gc.freeze()
