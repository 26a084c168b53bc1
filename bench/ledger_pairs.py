"""One database under the ledger: prints pairs and plain commits a second as one line of JSON."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
django.setup()

from django.core.management import call_command  # noqa: E402 - models need the set-up above
from django.db import connection, connections, transaction  # noqa: E402

from goals.domain.states import EntryKind, Unit  # noqa: E402
from goals.models import Account, Goal  # noqa: E402
from goals.services.ledger import Source, is_balanced, open_account, post_entry  # noqa: E402
from lineage.domain import Actor, ActorKind  # noqa: E402

SECONDS = 4.0  # of each figure
WRITERS = (1, 8)
LIMIT = 1 << 50  # nothing is refused: a refusal is cheaper than a pair
SOURCE = Source(actor=Actor(ActorKind.SYSTEM, "bench"))


def prepare() -> Account:
    """Tables, an account with a budget, and two plain tables of the same shape."""
    call_command("migrate", verbosity=0)
    with transaction.atomic():
        goal = Goal.objects.create(
            namespace="bench", name="bench", spec={}, objective="", requested_by="bench"
        )
        account = open_account(goal, unit=Unit.GPU_MS, limit=LIMIT, key="open", source=SOURCE)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE plain_entry (k varchar(200) PRIMARY KEY, amount bigint)")
        cursor.execute("CREATE TABLE plain_account (id integer PRIMARY KEY, balance bigint)")
        cursor.execute("INSERT INTO plain_account VALUES (1, 0)")
    return account


def pair(account: Account, key: str) -> None:
    """Reserve and settle, each in its own commit, journal record included."""
    for kind in (EntryKind.RESERVE, EntryKind.SETTLE):
        mine = Account.objects.select_related("goal").get(pk=account.pk)
        with transaction.atomic():
            post_entry(mine, kind=kind, amount=5, key=f"{key}:{kind}", source=SOURCE)


def plain(_account: Account, key: str) -> None:
    """What any ledger must do at least: a row and a balance, in two commits."""
    for word in ("a", "b"):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO plain_entry VALUES (%s, 5)", [f"{key}:{word}"])
            cursor.execute("UPDATE plain_account SET balance = balance + 5 WHERE id = 1")


def rate(work: Callable[[str], None], *, writers: int) -> float:
    """Calls a second of `writers` threads together, over SECONDS."""
    counts, errors = [0] * writers, list[BaseException]()
    start, is_over = threading.Barrier(writers + 1), threading.Event()

    def write(number: int) -> None:
        try:
            work(f"{writers}:{number}:first")  # opens the connection
            start.wait()
            while not is_over.is_set():
                counts[number] += 1
                work(f"{writers}:{number}:{counts[number]}")
        except BaseException as error:
            errors.append(error)
            start.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        start.wait()
    began = time.monotonic()
    is_over.wait(SECONDS)
    is_over.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts) / (time.monotonic() - began)


def main() -> None:
    """Measure both kinds of work with one and with several writers."""
    account = prepare()
    figures = {
        f"{work.__name__}:{writers}": rate(
            lambda key, work=work: work(account, f"{work.__name__}:{key}"), writers=writers
        )
        for work in (pair, plain)
        for writers in WRITERS
    }
    if not is_balanced(account):
        raise AssertionError("the account is off balance")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
