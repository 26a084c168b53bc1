"""System checks of the settings."""

from pathlib import Path
from typing import Any

import pytest

from console.checks import PORT_VARIABLES, check_no_twins, check_secret_key_is_kept


@pytest.mark.parametrize("name", PORT_VARIABLES)
def test_a_memory_twin_outside_debugging_is_an_error(settings: Any, name: str) -> None:
    for variable in PORT_VARIABLES:
        setattr(settings, variable, "other:")
    setattr(settings, name, "memory:?gpus=4")
    settings.DEBUG = False
    (error,) = check_no_twins(None)
    assert (error.id, name in error.msg) == ("clearance.E001", True)
    settings.DEBUG = True
    assert check_no_twins(None) == []


def test_a_made_up_secret_key_is_warned_of(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SECRET_KEY", "SECRET_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    settings.CLEARANCE_DATA = tmp_path
    (warning,) = check_secret_key_is_kept(None)
    assert warning.id == "clearance.W001"
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "secret_key").write_text("kept")
    assert check_secret_key_is_kept(None) == []
    (tmp_path / "keys" / "secret_key").unlink()
    monkeypatch.setenv("SECRET_KEY", "set")
    assert check_secret_key_is_kept(None) == []


def test_the_checks_are_registered() -> None:
    from django.core.checks.registry import registry

    assert {check_no_twins, check_secret_key_is_kept} <= set(registry.get_checks())
