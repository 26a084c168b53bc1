"""The web process when it has started: all pages are loaded, and stay."""

import subprocess
import sys

ASK = """
import gc, sys, console.asgi
gc.collect()
print(gc.get_freeze_count(), "console.api" in sys.modules, "goals.views.goal_detail" in sys.modules)
"""
LOADED = 50_000  # objects; there are three times as many


def test_what_is_loaded_is_not_walked_at_each_collection() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, check=True, timeout=120
    )
    frozen, *loaded = done.stdout.split()
    assert int(frozen) > LOADED
    assert loaded == ["True", "True"]
