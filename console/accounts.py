"""Local accounts of the embedded default: the first administrator."""

import secrets

from django.contrib.auth import get_user_model
from django.db import transaction

ADMIN_NAME = "admin"
PASSWORD_BYTES = 15  # 120 bits, 20 characters to type once


def ensure_admin(password: str = "") -> str | None:
    """Create `admin` where no administrator exists yet; returns its password, shown only now.

    Without a password one is made up.
    None when there is one already. Safe to repeat: a second call never changes a password.
    """
    users = get_user_model().objects
    with transaction.atomic():
        if users.filter(is_superuser=True).exists() or users.filter(username=ADMIN_NAME).exists():
            return None
        password = password or secrets.token_urlsafe(PASSWORD_BYTES)
        users.create_superuser(username=ADMIN_NAME, password=password)
    return password
