"""The hub's ear on the topic of spans: reconnects for ever, and says how long it heard nothing."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agents.fleet.domain import SpanFact
from agents.fleet.news import TOPIC, decode_spans

logger = logging.getLogger(__name__)

PING_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 4.0  # a broker that is silent for longer is asked anew
RETRY_SECONDS: Final = 2.0


class SpanBus:
    """Hears spans and hands them on; a broker that is down is nothing but old news."""

    def __init__(self, url: str, hear: Callable[[Sequence[SpanFact]], None]) -> None:
        self._url = url
        self._hear = hear
        self._is_down = False
        self.heard_at: float | None = None  # on the monotonic clock

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                if not self._is_down:
                    logger.warning("the span topic cannot be heard: %s", type(error).__name__)
                self._is_down = True
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        redis = Redis.from_url(
            self._url, socket_connect_timeout=ANSWER_SECONDS, socket_timeout=ANSWER_SECONDS
        )
        async with redis, redis.pubsub() as pubsub:
            await pubsub.subscribe(TOPIC)
            asked_at = 0.0
            heard_at = time.monotonic()
            while True:
                now = time.monotonic()
                if now - heard_at > ANSWER_SECONDS:
                    raise TimeoutError
                if now - asked_at >= PING_SECONDS:
                    await pubsub.ping()
                    asked_at = now
                message: dict[str, Any] | None = await pubsub.get_message(timeout=PING_SECONDS)
                if message is None:
                    continue
                heard_at = self.heard_at = time.monotonic()
                self._is_down = False
                if message["type"] == "message":
                    self._hear(decode_spans(message["data"]))
