"""Ask a process whether it is ready, without ever raising and within a short time."""

import asyncio

from console.tower.specs import FileReady, HttpReady, PongReady, Ready

PROBE_SECONDS = 3.0  # a process that needs longer for its health page is not ready
ANSWER_MAX_BYTES = 4096


async def is_ready(check: Ready) -> bool:
    """Whether the check passes now."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return await _probe(check)
    except (OSError, TimeoutError):
        return False


async def _probe(check: Ready) -> bool:
    match check:
        case HttpReady():
            answer = await _ask(*await _open_http(check), request=_http_request(check))
            words = answer.split(b" ", 2)
            return len(words) > 1 and words[0].startswith(b"HTTP/") and words[1] == b"200"
        case PongReady(socket=path):
            reader, writer = await asyncio.open_unix_connection(str(path))
            return (await _ask(reader, writer, request=b"PING\r\n")).startswith(b"+PONG")
        case FileReady(path=path):
            return path.exists()
        case _:
            return True


async def _open_http(check: HttpReady) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(check.host, check.port)


def _http_request(check: HttpReady) -> bytes:
    headers = {"Host": f"{check.host}:{check.port}", "Connection": "close", **dict(check.headers)}
    lines = [f"GET {check.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, request: bytes
) -> bytes:
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read(ANSWER_MAX_BYTES)
    finally:
        writer.close()
