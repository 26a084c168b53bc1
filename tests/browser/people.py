"""Makes the people of the browser tests in the database of a tower that runs; see `make_people`."""

import json
import os
import subprocess
import sys

from tests.console.real_tower import ROOT, RealTower

PASSWORD = "correct horse battery staple"


def make_people(tower: RealTower, roles: dict[str, list[str]]) -> None:
    """Users with their roles, made as an administrator's shell would.

    A role is one of namespace `default`, or written NAMESPACE:ROLE.
    """
    subprocess.run(
        [sys.executable, "-m", "tests.browser.people", json.dumps(roles)],
        cwd=ROOT,
        env=tower.environment,
        check=True,
        timeout=60,
    )


def _main(roles: dict[str, list[str]]) -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    django.setup()
    from django.contrib.auth.models import User

    from governance.models import Membership

    for name, held in roles.items():
        user = User.objects.create_user(username=name, password=PASSWORD)
        for role in held:
            namespace, _, word = role.rpartition(":")
            Membership.objects.create(user=user, namespace=namespace or "default", role=word)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
