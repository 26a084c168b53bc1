"""Environment variables are read strictly, and every one of them is documented."""

import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from console.env import StrictEnv

ROOT = Path(__file__).resolve().parents[2]
NAME = "CLEARANCE_TEST_VARIABLE"
READ = re.compile(r"env\.(?:text|strict_bool|whole_number|words)\(\s*\"([A-Z_]+)\"")
DOCUMENTED = re.compile(r"^#?([A-Z_]+)=", re.MULTILINE)


@pytest.fixture
def env() -> StrictEnv:
    return StrictEnv()


@pytest.mark.parametrize(
    ("word", "value"),
    [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("no", False)],
)
def test_booleans_it_knows(
    env: StrictEnv, monkeypatch: pytest.MonkeyPatch, word: str, value: bool
) -> None:
    monkeypatch.setenv(NAME, word)
    assert env.strict_bool(NAME, default=not value) is value


@pytest.mark.parametrize("word", ["maybe", "2", "-", "y e s", "tru"])
def test_a_boolean_it_does_not_know_stops_the_start(
    env: StrictEnv, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ImproperlyConfigured, match=rf"{NAME}='{word}' is not a boolean"):
        env.strict_bool(NAME, default=True)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("a", "not a whole number"),
        ("1.5", "not a whole number"),
        ("0", "outside 1..9"),
        ("10", "outside 1..9"),
    ],
)
def test_whole_numbers_are_checked(
    env: StrictEnv, monkeypatch: pytest.MonkeyPatch, word: str, reason: str
) -> None:
    monkeypatch.setenv(NAME, word)
    with pytest.raises(ImproperlyConfigured, match=reason):
        env.whole_number(NAME, default=1, low=1, high=9)


def test_a_secret_file_is_read_and_stripped(
    env: StrictEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("  s3cret \n")
    monkeypatch.setenv(f"{NAME}_FILE", str(secret))
    assert env.text(NAME) == "s3cret"
    monkeypatch.setenv(NAME, "other")
    with pytest.raises(ImproperlyConfigured, match="keep one"):
        env.text(NAME)


def test_a_secret_file_that_cannot_be_read_is_named(
    env: StrictEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "absent"))
    with pytest.raises(ImproperlyConfigured, match="absent: No such file"):
        env.text(NAME)


def test_a_kept_secret_may_be_absent_but_not_unreadable(env: StrictEnv, tmp_path: Path) -> None:
    assert env.kept_secret(tmp_path / "absent") == ""
    (tmp_path / "kept").write_text("abc\n")
    assert env.kept_secret(tmp_path / "kept") == "abc"
    with pytest.raises(ImproperlyConfigured, match="Is a directory"):
        env.kept_secret(tmp_path)


def test_every_variable_is_in_env_example_and_nothing_else_is() -> None:
    read = set(READ.findall((ROOT / "console" / "settings.py").read_text(encoding="utf-8")))
    documented = DOCUMENTED.findall((ROOT / ".env.example").read_text(encoding="utf-8"))
    assert len(read) > 20
    assert sorted(documented) == sorted(read)
