"""Static files through the asynchronous server: read at once, and nothing warns."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.test import AsyncClient, RequestFactory
from whitenoise.responders import StaticFile

from console.static_files import StaticFilesMiddleware

PATH = "/static/css/tokens.css"


def bytes_of(path: str) -> bytes:
    found = finders.find(path.removeprefix("/static/"))
    assert isinstance(found, str)
    with open(found, "rb") as file:
        return file.read()


async def body(answer: Any) -> bytes:
    if answer.streaming:
        return b"".join([part async for part in answer])
    return bytes(answer.content)


@pytest.mark.asyncio
async def test_a_file_is_served_whole_and_without_a_warning() -> None:
    answer = await AsyncClient().get(PATH)
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/css")
    assert await body(answer) == bytes_of(PATH)  # warnings are errors
    assert answer["Content-Length"] == str(len(bytes_of(PATH)))


@pytest.mark.asyncio
async def test_what_the_browser_has_already_is_not_sent_again() -> None:
    client = AsyncClient()
    first = await client.get(PATH)
    again = await client.get(PATH, headers={"If-Modified-Since": first["Last-Modified"]})
    assert (again.status_code, await body(again)) == (304, b"")


@pytest.mark.asyncio
async def test_a_head_and_a_range_are_answered_as_asked() -> None:
    client = AsyncClient()
    head = await client.head(PATH)
    assert (head.status_code, await body(head)) == (200, b"")
    assert head["Content-Length"] == str(len(bytes_of(PATH)))
    part = await client.get(PATH, headers={"Range": "bytes=2-9"})
    assert (part.status_code, await body(part)) == (206, bytes_of(PATH)[2:10])


def test_a_file_that_grew_since_the_start_is_sent_whole(tmp_path: Path) -> None:
    path = tmp_path / "grown.css"
    path.write_text("a {}")
    known = StaticFile(str(path), [("Content-Type", "text/css")])
    path.write_text("a {} b {}")
    answer = StaticFilesMiddleware.serve(known, RequestFactory().get("/static/grown.css"))
    assert (answer.content, answer["Content-Length"]) == (b"a {} b {}", "9")
