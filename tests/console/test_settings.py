"""Settings as other processes see them: each case is a fresh Python with its own environment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOW = """
import json
from console import settings
shown = {name: value for name, value in vars(settings).items() if name.isupper()}
print(json.dumps(shown, default=str))
"""


def settings_with(tmp_path: Path, **variables: str) -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "CLEARANCE_DATA": str(tmp_path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_defaults_are_safe(tmp_path: Path) -> None:
    seen = settings_with(tmp_path)
    assert seen["DEBUG"] is False
    assert seen["WEB_HOST"] == seen["OTLP_HOST"] == "127.0.0.1"
    assert seen["DATABASES"]["default"]["NAME"].startswith(str(tmp_path))
    assert seen["FOUR_EYES"] is True
    assert "*" not in seen["ALLOWED_HOSTS"]


def test_two_processes_share_the_kept_key_and_without_one_share_none(tmp_path: Path) -> None:
    first, second = settings_with(tmp_path), settings_with(tmp_path)
    assert first["SECRET_KEY"] != second["SECRET_KEY"]
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "secret_key").write_text("k" * 50)
    assert settings_with(tmp_path)["SECRET_KEY"] == "k" * 50
    assert settings_with(tmp_path, SECRET_KEY="mine")["SECRET_KEY"] == "mine"


def test_https_turns_on_everything_that_needs_it(tmp_path: Path) -> None:
    plain = settings_with(tmp_path)
    secure = settings_with(tmp_path, WEB_URL="https://clearance.example/")
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_SSL_REDIRECT"):
        assert plain[name] is False
        assert secure[name] is True
    assert secure["WEB_URL"] == "https://clearance.example"
    assert secure["SECURE_HSTS_SECONDS"] > 0


@pytest.mark.parametrize(
    ("url", "engine"),
    [
        ("postgres://u:p@db.example:5432/n", "django.db.backends.postgresql"),
        ("sqlite:////tmp/x.sqlite3", "django.db.backends.sqlite3"),
    ],
)
def test_the_database_is_one_url(tmp_path: Path, url: str, engine: str) -> None:
    assert settings_with(tmp_path, DATABASE_URL=url)["DATABASES"]["default"]["ENGINE"] == engine


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/v.sock", "redis+socket:///run/v.sock"),
        ("redis://h:1/0", "redis://h:1/0"),
    ],
)
def test_celery_gets_the_broker_in_its_own_spelling(tmp_path: Path, url: str, broker: str) -> None:
    assert settings_with(tmp_path, REDIS_URL=url)["CELERY_BROKER_URL"] == broker


@pytest.mark.parametrize(
    ("name", "word"), [("DEBUG", "perhaps"), ("WEB_PORT", "99999"), ("SVID_TTL_SECONDS", "soon")]
)
def test_an_unreadable_variable_is_named(tmp_path: Path, name: str, word: str) -> None:
    with pytest.raises(AssertionError, match=f"ImproperlyConfigured: {name}="):
        settings_with(tmp_path, **{name: word})
