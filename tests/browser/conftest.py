"""What the tests in a browser share: the browser, the site of twins, and its administrator."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.chromium import Person, chromium
from tests.browser.site import Site, site


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of a file."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The console over twins, filled; each file has its own, since its tests change it."""
    with site(tmp_path_factory.mktemp("site")) as one:
        yield one


@pytest.fixture
def ada(browser: Any, console: Site) -> Iterator[Person]:
    """An administrator who is signed in; the test fails where the page complained."""
    one = console.person(browser, "ada")
    yield one
    assert one.complaints == []
    one.page.context.close()
