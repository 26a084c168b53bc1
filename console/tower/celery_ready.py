"""Celery's application for the tower: makes a file once the worker or the beat is at work."""

import os
from pathlib import Path
from typing import Any

from celery.signals import beat_init, worker_ready

from console.celery import app
from console.tower.processes import READY_FILE_VARIABLE

__all__ = ["app"]


def _make_ready_file(**_signal: Any) -> None:
    if name := os.environ.get(READY_FILE_VARIABLE):
        Path(name).touch()


worker_ready.connect(_make_ready_file)
beat_init.connect(_make_ready_file)
