"""The real tower on PostgreSQL and Redis, reached by changing their URLs and nothing else."""

import urllib.parse
from collections.abc import Iterator

import pytest

from tests.console.real_tower import RealTower, eventually
from tests.kill.people import sign_in
from tests.with_servers import MissingServer, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
GOAL_SECONDS = 200.0


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealTower]:
    try:
        with servers() as environment:
            one = RealTower(tmp_path_factory.mktemp("servers"), **environment, EXAMPLE="1")
            try:
                yield one.start().ready()
            finally:
                one.close()
    except MissingServer as missing:
        pytest.skip(str(missing))


def test_the_example_lands_on_postgresql_and_redis(tower: RealTower) -> None:
    assert "valkey" not in tower.state()["processes"]
    assert not list(tower.data.glob("*.sqlite3"))
    admin = sign_in(tower)

    def checkout() -> dict[str, str]:
        return admin.goals().get("reduce-p99-latency", {"phase": ""})

    eventually(lambda: checkout()["phase"] in ("Satisfied", "Failed"), seconds=GOAL_SECONDS)
    assert checkout()["phase"] == "Satisfied"
    eventually(lambda: admin.goals()["rogue-fine-tune"]["phase"] == "Paused", seconds=GOAL_SECONDS)
    (approval,) = admin.insist("GET", "approvals?state=pending")["results"]
    assert admin.answer(approval, grant=None) == 200
    eventually(lambda: admin.goals()["rogue-fine-tune"]["phase"] == "Exhausted")
    for name, goal in admin.goals().items():
        assert admin.insist("GET", f"goals/{goal['uid']}/evidence").startswith(b"PK"), name


def test_no_password_of_a_server_is_in_a_log(tower: RealTower) -> None:
    urls = [tower.environment[name] for name in ("DATABASE_URL", "REDIS_URL")]
    passwords = [urllib.parse.urlsplit(url).password or "" for url in urls]
    assert all(passwords)
    logs = [path.read_text(errors="replace") for path in (tower.data / "logs").iterdir()]
    for text in [*logs, tower.said()]:
        assert not [password for password in passwords if password in text]
