"""Celery's application for its programs: a file says that the worker or the beat is at work.

It is made once they are ready and touched while they go on: the worker with each heartbeat, the
beat with each task it sends. One that hangs, or that lost its broker and never noticed, does not.
"""

import os
from pathlib import Path
from typing import Any

from celery.signals import beat_init, before_task_publish, heartbeat_sent, worker_ready

from console.celery import app
from console.tower.programs import READY_FILE_VARIABLE, show_at_work

__all__ = ["app"]


def _is_ready(**_signal: Any) -> None:
    show_at_work()


def _goes_on(**_signal: Any) -> None:
    name = os.environ.get(READY_FILE_VARIABLE)
    if name and Path(name).exists():  # never before it is ready
        show_at_work()


worker_ready.connect(_is_ready)
heartbeat_sent.connect(_goes_on)
beat_init.connect(_is_ready)
before_task_publish.connect(_goes_on)
