"""Run the worker that reconciles Goals without a tower: for containers."""

from django.conf import settings

from console.management.program import ProgramCommand
from console.tower.programs import worker_command


class Command(ProgramCommand):
    """`manage.py worker`: the file CLEARANCE_READY_FILE is touched while it is at work."""

    help = "Run Celery's worker until told to stop; what it is doing then is done again."

    def command_line(self) -> tuple[str, ...]:
        """The worker."""
        return worker_command(concurrency=settings.WORKER_CONCURRENCY, log_level=settings.LOG_LEVEL)
