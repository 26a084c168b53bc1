"""What the tower does itself before the processes that need it: tables, first administrator."""

from django.core.management import call_command
from django.db import DatabaseError, connections
from django.db.utils import InterfaceError

from console.accounts import ADMIN_NAME, ensure_admin
from console.tower.logs import Terminal
from console.tower.supervisor import StepFailed


def prepare_database(terminal: Terminal) -> None:
    """Migrate, then create the administrator of a new installation. Safe to repeat.

    Raises StepFailed with one line when the database cannot be used.
    """
    try:
        call_command("migrate", interactive=False, verbosity=0)
        password = ensure_admin()
    except (DatabaseError, InterfaceError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StepFailed(
            f"DATABASE_URL: {reason}: correct it, start that server or free its disk."
        ) from error
    finally:
        connections.close_all()
    if password is not None:
        terminal.say(f"first start: log in as {ADMIN_NAME} with the password {password}")
        terminal.say("it is shown this once; `manage.py changepassword admin` makes a new one")
