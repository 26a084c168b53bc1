"""What commands of long-running programs share: become the program, so that signals reach it."""

import contextlib
import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from console.tower.programs import ENVIRONMENT, READY_FILE_VARIABLE


class ProgramCommand(BaseCommand):
    """Replaces this process by the program of `command_line`; gives nothing back."""

    # The checks import every page; the programs make those that they need.
    requires_system_checks = ()

    def command_line(self) -> tuple[str, ...]:
        """The program and its arguments."""
        raise NotImplementedError

    def handle(self, *_args: Any, **_options: Any) -> None:
        """Become the program, no longer ready whatever a process before us has said."""
        if name := os.environ.get(READY_FILE_VARIABLE):
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
        command = self.command_line()
        os.execve(command[0], command, {**ENVIRONMENT, **os.environ})  # noqa: S606 - no shell is what we want
