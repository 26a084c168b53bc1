"""What the tower does itself before the processes that need it: tables, first administrator."""

import contextlib
from collections.abc import Iterator
from typing import Final

from django.core.management import call_command
from django.db import DatabaseError, connection, connections
from django.db.utils import InterfaceError

from console.accounts import ADMIN_NAME, ensure_admin
from console.tower.logs import Terminal
from console.tower.supervisor import StepFailed

# Names our advisory lock among others of the same PostgreSQL database ("clearanc" in ASCII).
PREPARE_LOCK: Final = int.from_bytes(b"clearanc")


def prepare_database(terminal: Terminal) -> None:
    """Migrate, then create the administrator of a new installation. Safe to repeat.

    Raises StepFailed with one line when the database cannot be used.
    """
    with alone_on_database():
        call_command("migrate", interactive=False, verbosity=0)
        password = ensure_admin()
    if password is not None:
        terminal.say(f"first start: log in as {ADMIN_NAME} with the password {password}")
        terminal.say("it is shown this once; `manage.py changepassword admin` makes a new one")


@contextlib.contextmanager
def alone_on_database() -> Iterator[None]:
    """Prepare the database while nobody else does; its connections are closed afterwards.

    Raises StepFailed with one line when the database cannot be used.
    """
    try:
        if connection.vendor == "postgresql":  # would let two migrate at once; SQLite does not
            with connection.cursor() as cursor:  # the lock ends with the connection
                cursor.execute("SELECT pg_advisory_lock(%s)", [PREPARE_LOCK])
        yield
    except (DatabaseError, InterfaceError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StepFailed(
            f"DATABASE_URL: {reason}: correct it, start that server or free its disk."
        ) from error
    finally:
        connections.close_all()
