"""Run the clock that rings for periodic work, without a tower: for containers."""

from pathlib import Path

from django.conf import settings

from console.management.program import ProgramCommand
from console.tower.programs import beat_command


class Command(ProgramCommand):
    """`manage.py beat`: one is enough; a second one only rings twice."""

    help = "Run Celery's clock until told to stop."

    def command_line(self) -> tuple[str, ...]:
        """The clock; what it remembers may be lost, since every task is level-triggered."""
        schedule = Path(settings.CLEARANCE_DATA) / "run" / "beat-schedule"
        schedule.parent.mkdir(parents=True, exist_ok=True)
        return beat_command(schedule=str(schedule), log_level=settings.LOG_LEVEL)
