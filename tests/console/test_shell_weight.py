"""How much script each page loads first, gzipped: what its tags name and all that those import."""

import gzip
import posixpath
import re
from pathlib import Path
from typing import Any

import pytest
from django.urls import get_resolver

from console.settings import BASE_DIR

FIRST_LOAD_MAX = 150_000  # bytes of gzipped JavaScript
MORE_ALLOWED = {"/tower": 200_000, "/policies/": 300_000}  # the map, the editor
STATIC = BASE_DIR / "static"
IMPORT = re.compile(
    r"""\b(?:im|ex)port\s*(?:[\w*{}\s,$]+?from\s*)?["']((?:\.|/static/)[^"']+)["']"""
)


def scripts_of(page: str) -> set[str]:
    """Paths below `static/` of what the page's tags load, and what that imports in turn."""
    found: set[str] = set()
    waiting = re.findall(r"<script\b[^>]*\bsrc=\"/static/([^\"]+)\"", page)
    waiting += re.findall(r"<link\b[^>]*rel=\"modulepreload\"[^>]*href=\"/static/([^\"]+)\"", page)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in IMPORT.findall((STATIC / path).read_text()):
            if name.startswith("."):
                waiting.append(posixpath.normpath(posixpath.join(posixpath.dirname(path), name)))
            else:
                waiting.append(name.removeprefix("/static/"))
    return found


def weight(scripts: set[str]) -> int:
    return sum(len(gzip.compress(Path(STATIC, path).read_bytes(), 9)) for path in scripts)


def test_imports_are_followed() -> None:
    page = '<script src="/static/js/shell/shell.js" type="module"></script>'
    assert "js/shell/grammar.js" in scripts_of(page)  # shell imports filter, filter imports it


def plain_paths() -> list[str]:
    """Every page whose address needs no name."""
    patterns = (str(one.pattern) for one in get_resolver().url_patterns)
    return sorted(
        f"/{path}" for path in patterns if "<" not in path and not path.startswith("api/")
    )


@pytest.mark.django_db
def test_each_page_loads_little_script_first(tower: Any, signed_in: Any) -> None:
    tower.register("profiler")
    tower.apply("light")
    browser = signed_in("admin")
    goal = "/goals/default/light"
    details = [goal, *(f"{goal}/{tab}" for tab in ("trace", "lineage"))]
    weights = {}
    for path in [*plain_paths(), *details, "/policies/starter/1"]:
        answer = browser.get(path)
        if answer.status_code == 200 and answer["Content-Type"].startswith("text/html"):
            weights[path] = weight(scripts_of(answer.content.decode()))
    assert {"/tower", "/goals", "/policies/starter/1", goal} <= weights.keys()
    print(weights)
    for path, found in weights.items():
        allowed = (more for start, more in MORE_ALLOWED.items() if path.startswith(start))
        assert found <= next(allowed, FIRST_LOAD_MAX), path
    assert weights["/policies/starter/1"] > weights["/goals"] > 0
