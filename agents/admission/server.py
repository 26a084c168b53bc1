"""The HTTPS server of the webhooks, whose certificate may change while it serves."""

import asyncio
import gc
import ssl
import sys
from typing import Any, Final

import uvicorn

from agents.admission.app import AdmissionApp
from agents.admission.keeping import Shown

# Longer than the API server keeps a connection it does not use (90 s), so that it never writes a
# review into one that is being closed here.
KEEP_ALIVE_SECONDS: Final = 300
# How long a thread that writes decisions to the database may keep a review waiting, each time the
# review comes back from the sandbox or the disk. Python's own is ten times that.
SWITCH_SECONDS: Final = 0.0005
DRAIN_SECONDS: Final = 5  # what a server that is told to stop gives the reviews it is answering


class AdmissionServer(uvicorn.Server):
    """uvicorn, which tells whoever shows certificates where its handshakes happen."""

    def __init__(self, app: AdmissionApp, shown: Shown, *, host: str, port: int) -> None:
        """Open nothing."""

        def context(*_: Any) -> ssl.SSLContext:
            return shown.context

        super().__init__(
            uvicorn.Config(
                app,
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
