"""Run the ingest of spans without a tower: for containers and other supervisors."""

from django.conf import settings

from console.management.program import ProgramCommand
from console.tower.programs import asgi_command


class Command(ProgramCommand):
    """`manage.py otlp` listens on OTLP_HOST and OTLP_PORT; `/healthz` answers 200 when ready."""

    help = "Take spans over OTLP/HTTP until told to stop."

    def command_line(self) -> tuple[str, ...]:
        """The server."""
        return asgi_command("otlp", host=settings.OTLP_HOST, port=settings.OTLP_PORT)
