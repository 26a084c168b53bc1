"""The command line of each long-running program of Clearance, for the tower and for containers."""

import contextlib
import os
import sys
from pathlib import Path

# Malloc keeps one arena per thread and core, which doubles the memory of a threaded Python.
ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2"}
READY_FILE_VARIABLE = "CLEARANCE_READY_FILE"
ASGI_APPLICATIONS = {"web": "console.asgi:application", "otlp": "console.otlp:application"}
DRAIN_SECONDS = 5  # what a server that is told to stop gives the requests it is answering


def show_at_work() -> None:
    """Touch the file that says that this process works; nothing where nobody asked for one."""
    if name := os.environ.get(READY_FILE_VARIABLE):
        with contextlib.suppress(OSError):  # then the probe fails, and not the work
            Path(name).touch()


def asgi_command(name: str, *, host: str, port: int) -> tuple[str, ...]:
    """The server `web` or `otlp`, on this address."""
    return (
        sys.executable, "-m", "uvicorn", ASGI_APPLICATIONS[name],
        "--host", host,
        "--port", str(port),
        "--no-access-log",
        "--no-server-header",
        "--timeout-graceful-shutdown", str(DRAIN_SECONDS),
        # Packed frames gain a tenth by deflate and cost four times the CPU; nobody sends much.
        "--ws-per-message-deflate", "false",
        "--ws-max-size", "65536",
    )  # fmt: skip


def worker_command(*, concurrency: int, log_level: str) -> tuple[str, ...]:
    """Celery's worker: so many tasks at a time."""
    return _celery(
        "worker",
        # Threads, not prefork: reconcile steps wait for databases and sockets, and one process
        # of four threads takes a fifth of the memory of a parent with four children.
        "--pool", "threads",
        "--concurrency", str(concurrency),
        "--without-gossip", "--without-mingle",
        log_level=log_level,
    )  # fmt: skip


def beat_command(*, schedule: str, log_level: str) -> tuple[str, ...]:
    """Celery's clock; `schedule` is the file where it keeps when each task last ran."""
    return _celery("beat", "--schedule", schedule, "--pidfile", "", log_level=log_level)


def _celery(name: str, *options: str, log_level: str) -> tuple[str, ...]:
    program = (sys.executable, "-m", "celery", "-A", "console.tower.celery_ready", name)
    return (*program, "--loglevel", log_level, *options)
