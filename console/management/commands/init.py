"""Prepare a new or newer version where no tower does: tables, first administrator, policies."""

import time
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import InterfaceError

from console.accounts import ADMIN_NAME, ensure_admin
from console.tower.prepare import alone_on_database
from console.tower.supervisor import StepFailed
from lineage.telemetry.base import TelemetryError

PATIENCE_SECONDS: Final = 600.0
LOOK_SECONDS: Final = 2.0
PASSWORD_CHARACTERS_MIN: Final = 12


class Command(BaseCommand):
    """`manage.py init`: safe to repeat, and to run twice at once."""

    help = "Migrate the database, enforce the starter policies, create the first administrator."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Do it, or wait until somebody has."""
        parser.add_argument(
            "--admin-password-file", type=Path, metavar="FILE",
            help="create `admin` with the password in this file, where no administrator exists",
        )  # fmt: skip
        parser.add_argument(
            "--wait", action="store_true", help="only wait until another has migrated the database"
        )
        parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="seconds")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Exits 1 with one line when something that is needed does not answer."""
        if options["wait"]:
            _wait(options["patience"])
            return
        password = _password(options["admin_password_file"])
        # Keys are made here by whoever needs them first; nobody else may read them.
        (Path(settings.CLEARANCE_DATA) / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with alone_on_database():
                call_command("migrate", interactive=False, verbosity=0)
                self._ensure_admin(password)
                call_command("bootstrap")
        except (StepFailed, TelemetryError) as error:
            raise CommandError(str(error)) from error

    def _ensure_admin(self, password: str) -> None:
        if not password:
            self.stdout.write(
                "no administrator is created: give --admin-password-file, or run "
                "`manage.py createsuperuser`"
            )
        elif ensure_admin(password) is not None:
            self.stdout.write(f"created the administrator {ADMIN_NAME}")


def _password(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        password = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise CommandError(f"--admin-password-file {path}: {error.strerror}.") from error
    if len(password) < PASSWORD_CHARACTERS_MIN:
        raise CommandError(
            f"--admin-password-file {path}: at least {PASSWORD_CHARACTERS_MIN} characters."
        )
    return password


def _wait(patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while (missing := _missing()) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    if missing:
        raise CommandError(f"waited {patience_seconds:g} s for `manage.py init`: {missing}")


def _missing() -> str:
    """What keeps this version from running on the database; "" when nothing does."""
    try:
        executor = MigrationExecutor(connection)
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except (DatabaseError, InterfaceError) as error:
        return f"the database of DATABASE_URL does not answer ({type(error).__name__})"
    finally:
        connection.close()
    return f"{len(plan)} migrations are not applied yet" if plan else ""
