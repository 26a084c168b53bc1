"""The HTTPS server of the webhooks, whose certificate may change while it serves."""

import asyncio
import gc
import ssl
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from agents.admission.app import AdmissionApp, reply
from agents.admission.keeping import Shown

# Longer than the API server keeps a connection it does not use (90 s), so that it never writes a
# review into one that is being closed here.
KEEP_ALIVE_SECONDS: Final = 300
# How long a thread that writes decisions to the database may keep a review waiting, each time the
# review comes back from the sandbox or the disk. Python's own is ten times that.
SWITCH_SECONDS: Final = 0.0005
DRAIN_SECONDS: Final = 5  # what a server that is told to stop gives the reviews it is answering


IS_KNOWN: Final = "is_known"  # of a connection: its caller has shown a certificate that we check
UNKNOWN_CALLER: Final = (
    b"Only the API server may ask: show a certificate of an authority in --client-ca-file.\n"
)


class CallerProtocol(HttpToolsProtocol):
    """HTTP that says of each request whether its connection came with a good certificate."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The handshake is over by now, and a certificate that is not good has failed it."""
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object")
        is_known = shown is not None and bool(shown.getpeercert())
        self.app_state = {**self.app_state, IS_KNOWN: is_known}


class KnownCallers:
    """Lets nobody ask the webhooks who has shown no certificate; pages for probes are open."""

    def __init__(self, app: AdmissionApp) -> None:
        """Before `app`."""
        self._app = app

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """One request."""
        is_page = scope.get("method") in ("GET", "HEAD")
        if scope["type"] != "http" or is_page or scope.get("state", {}).get(IS_KNOWN):
            await self._app(scope, receive, send)
        else:
            await reply(send, 403, UNKNOWN_CALLER, "text/plain")


class AdmissionServer(uvicorn.Server):
    """uvicorn, which tells whoever shows certificates where its handshakes happen."""

    def __init__(self, app: AdmissionApp, shown: Shown, *, host: str, port: int) -> None:
        """Open nothing."""

        def context(*_: Any) -> ssl.SSLContext:
            return shown.context

        super().__init__(
            uvicorn.Config(
                KnownCallers(app) if shown.checks_callers else app,
                http=CallerProtocol,
                host=host,
                port=port,
                ssl_context_factory=context,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                log_config=None,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        self._shown = shown

    async def startup(self, sockets: Any = None) -> None:
        """Begin to listen."""
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is loaded by now stays: a collection that walks it would hold up every review.
        gc.collect()
        gc.freeze()
        self._shown.loop = asyncio.get_running_loop()
        await super().startup(sockets)
