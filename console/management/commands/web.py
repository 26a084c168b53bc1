"""Run pages, API and live feed without a tower: for containers and other supervisors."""

from django.conf import settings

from console.management.program import ProgramCommand
from console.tower.programs import asgi_command


class Command(ProgramCommand):
    """`manage.py web` listens on WEB_HOST and WEB_PORT; `/healthz` answers 200 when ready."""

    help = "Serve pages, API and live feed (ASGI) until told to stop."

    def command_line(self) -> tuple[str, ...]:
        """The server."""
        return asgi_command("web", host=settings.WEB_HOST, port=settings.WEB_PORT)
