"""People: added, given roles, shut out; one-time passwords; sessions and who may end them."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from console.live.rights import visible_by_session
from governance.access import NotAllowed, principal_of, who_may
from governance.domain import EVERY_NAMESPACE, Permission, Role
from governance.models import ApiToken, Credential, JournalRecord, Membership, PersonSession
from governance.services.people import (
    Grant,
    PeopleInvalid,
    add_person,
    change_roles,
    deactivate_person,
    grants_of,
    parse_grant,
    reset_password,
)
from governance.services.sessions import device_of
from governance.services.tokens import authenticate_token, create_token
from governance.services.verification import verify_journal

pytestmark = pytest.mark.django_db
OWN = "a password of her own, not common"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
OPERATOR = Grant("default", Role.OPERATOR)
ADMIN = Grant(EVERY_NAMESPACE, Role.ADMIN)


@pytest.fixture(autouse=True)
def _quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def browser_of(name: str, password: str = "correct horse battery") -> Client:
    browser = Client(headers={"User-Agent": FIREFOX})
    answer = browser.post("/login", {"username": name, "password": password})
    assert answer.status_code == 302, answer.content
    return browser


def admin_of(people: dict[str, Any]) -> Any:
    return principal_of(people["admin"])


def actions() -> list[str]:
    found = JournalRecord.objects.filter(object_kind="person").order_by("seq")
    return list(found.values_list("action", flat=True))


def test_a_person_added_on_the_page_chooses_a_password_before_anything_else(people: Any) -> None:
    admin = browser_of("admin")
    made = admin.post(
        "/people",
        {"username": "olivia", "full_name": "Olivia O", "role": "operator", "namespace": "default"},
    )
    assert made.status_code == 201
    assert "no-store" in made["Cache-Control"]
    (password,) = re.findall(r'id="one-time-password"[^>]*>([^<]+)<', made.content.decode())
    olivia = browser_of("olivia", password)
    for path in ("/goals", "/tower", "/people", "/tokens"):
        assert olivia.get(path)["Location"] == "/profile"
    assert olivia.get("/api/v1/goals").json()["results"] == []
    (key,) = PersonSession.objects.filter(user__username="olivia").values_list("session_key")
    assert visible_by_session(key) == {}
    login = {"username": "olivia", "password": password}
    refused = Client().post("/api/v1/login", login, content_type="application/json")
    assert refused.status_code == 403
    assert "one-time" in refused.json()["detail"]
    assert "one-time password" in olivia.get("/profile").content.decode()
    for wrong, word in (
        ({"old": "no", "new": OWN, "again": OWN}, "not your password"),
        ({"old": password, "new": OWN, "again": "else"}, "not what you typed"),
        ({"old": password, "new": "short", "again": "short"}, "too short"),
        ({"old": password, "new": password, "again": password}, "another one"),
    ):
        answer = olivia.post("/profile/password", wrong)
        assert answer.status_code == 422
        assert word in answer.content.decode()
    changed = olivia.post("/profile/password", {"old": password, "new": OWN, "again": OWN})
    assert changed["Location"] == "/tower"
    assert olivia.get("/goals").status_code == 200
    assert principal_of(User.objects.get(username="olivia")).may(
        Permission.OPERATE, namespace="default"
    )
    assert actions() == ["person.added", "person.password_changed"]
    assert password not in "".join(JournalRecord.objects.values_list("canonical", flat=True))
    assert verify_journal().holds


def test_only_an_administrator_of_everything_sees_or_changes_people(people: Any) -> None:
    local, _ = add_person("lars", grants=[Grant("default", Role.ADMIN)], by=admin_of(people))
    Credential.objects.filter(user=local).delete()
    for user in (people["viewer"], people["auditor"], local):
        browser = Client()
        browser.force_login(user)
        answer = browser.get("/people")
        assert answer.status_code == 403
        assert "ask admin" in answer.content.decode()
        assert browser.get("/people/admin").status_code == 403
        assert browser.post("/people/viewer/deactivate").status_code == 403
    principal = principal_of(local)
    with pytest.raises(NotAllowed, match="role admin in every namespace"):
        change_roles(people["viewer"], give=[ADMIN], by=principal)
    with pytest.raises(NotAllowed, match="role admin"):
        add_person("mallory", grants=[ADMIN], by=principal)
    assert not User.objects.filter(username="mallory").exists()


def test_roles_count_at_once_and_nobody_changes_their_own(people: Any) -> None:
    admin, viewer = browser_of("admin"), people["viewer"]
    grant = {"namespace": "default", "role": "operator"}
    assert admin.post("/people/viewer/roles", {"do": "give", **grant}).status_code == 302
    assert principal_of(viewer).may(Permission.OPERATE, namespace="default")
    assert OPERATOR in grants_of(viewer)
    admin.post("/people/viewer/roles", {"do": "take", **grant})
    assert not principal_of(viewer).may(Permission.OPERATE, namespace="default")
    own = admin.post("/people/admin/roles", {"do": "take", "namespace": "*", "role": "admin"})
    assert own.status_code == 403
    assert "another administrator" in own.content.decode()
    wrong = admin.post("/people/viewer/roles", {"do": "give", "namespace": "A b", "role": "admin"})
    assert wrong.status_code == 422
    page = admin.get("/people/admin").content.decode()
    assert "This is you" in page
    assert re.search(r'class="danger" disabled aria-describedby="why-not"', page)
    assert actions() == ["person.roles_changed"] * 2


def test_the_last_administrator_stays(people: Any) -> None:
    """Two administrators, each about to remove the other: the second finds that they are gone."""
    ada, _ = add_person("ada", grants=[ADMIN], by=admin_of(people))
    Credential.objects.filter(user=ada).delete()
    stale = principal_of(ada)
    change_roles(ada, take=[ADMIN], by=admin_of(people))
    with pytest.raises(NotAllowed):
        change_roles(people["admin"], take=[ADMIN], by=stale)
    with pytest.raises(NotAllowed):
        deactivate_person(people["admin"], by=stale)
    assert principal_of(people["admin"]).may(Permission.ADMINISTER, namespace=EVERY_NAMESPACE)


def test_a_superuser_is_an_administrator_that_can_be_taken_back(people: Any) -> None:
    root = User.objects.create_superuser("root", password="x")
    assert grants_of(root) == {ADMIN}
    assert change_roles(root, give=[OPERATOR], take=[ADMIN], by=admin_of(people))
    root.refresh_from_db()
    assert not root.is_superuser
    assert grants_of(root) == {OPERATOR}
    assert not change_roles(root, give=[OPERATOR], take=[ADMIN], by=admin_of(people))


def test_deactivation_ends_sessions_tokens_and_sign_in(people: Any) -> None:
    viewer = browser_of("viewer")
    assert viewer.get("/goals").status_code == 200
    _, text = create_token(people["viewer"], principal=principal_of(people["viewer"]), name="ci")
    admin = browser_of("admin")
    assert admin.post("/people/viewer/deactivate").status_code == 302
    assert viewer.get("/goals").status_code == 302
    assert authenticate_token(text) is None
    assert ApiToken.objects.get().revoked_at is not None
    again = Client().post("/login", {"username": "viewer", "password": "correct horse battery"})
    assert again.status_code == 422
    assert "deactivated" in admin.get("/people").content.decode()
    assert not deactivate_person(people["viewer"], by=admin_of(people))
    admin.post("/people/viewer/activate")
    assert browser_of("viewer").get("/goals").status_code == 200
    assert authenticate_token(text) is None
    record = JournalRecord.objects.get(action="person.deactivated")
    assert '"sessions_ended":1' in record.canonical
    assert record.namespace == EVERY_NAMESPACE


def test_a_reset_ends_what_the_old_password_opened(people: Any) -> None:
    viewer = browser_of("viewer")
    password = reset_password(people["viewer"], by=admin_of(people))
    assert viewer.get("/goals").status_code == 302
    assert browser_of("viewer", password).get("/goals")["Location"] == "/profile"
    page = browser_of("admin").post("/people/viewer/reset")
    assert page.status_code == 200
    assert "one-time-password" in page.content.decode()
    with pytest.raises(NotAllowed, match="your own password"):
        reset_password(people["admin"], by=admin_of(people))


def test_sessions_are_listed_and_ended_by_their_owner_or_an_administrator(people: Any) -> None:
    here, there = browser_of("viewer"), browser_of("viewer")
    page = here.get("/profile").content.decode()
    assert page.count("Firefox on Linux") >= 2
    assert "127.0.0.1" in page
    assert "this one" in page
    other = PersonSession.objects.get(session_key=there.cookies["sessionid"].value)
    stranger = browser_of("operator")
    assert stranger.post(f"/sessions/{other.pk}/end").status_code == 404
    assert there.get("/goals").status_code == 200
    assert here.post(f"/sessions/{other.pk}/end")["Location"] == "/profile"
    assert there.get("/goals").status_code == 302
    assert not Session.objects.filter(pk=other.session_key).exists()
    browser_of("viewer"), browser_of("viewer")
    assert here.post("/sessions/end-others").status_code == 302
    assert PersonSession.objects.filter(user=people["viewer"]).count() == 1
    mine = PersonSession.objects.get(user=people["viewer"])
    ended = browser_of("admin").post(f"/sessions/{mine.pk}/end")
    assert ended["Location"] == "/people/viewer"
    assert here.get("/goals").status_code == 302
    assert actions() == ["session.ended"] * 3


def test_a_session_that_signed_out_or_expired_is_listed_no_more(people: Any) -> None:
    first, second = browser_of("viewer"), browser_of("viewer")
    first.post("/logout")
    assert PersonSession.objects.count() == 1
    key = second.cookies["sessionid"].value
    Session.objects.filter(pk=key).update(expire_date=timezone.now())
    third = browser_of("viewer")
    keys = set(PersonSession.objects.values_list("session_key", flat=True))
    assert keys == {third.cookies["sessionid"].value}


def test_a_new_password_keeps_this_session_and_ends_the_others(people: Any) -> None:
    here, there = browser_of("viewer"), browser_of("viewer")
    answer = here.post(
        "/profile/password", {"old": "correct horse battery", "new": OWN, "again": OWN}
    )
    assert answer["Location"] == "/profile"
    assert "this one" in here.get("/profile").content.decode()
    assert there.get("/goals").status_code == 302


def test_a_refusal_names_who_could_do_it(people: Any) -> None:
    assert who_may(Permission.OPERATE, namespace="default") == ["operator", "admin"]
    assert who_may(Permission.APPROVE, namespace="other") == ["admin"]
    with pytest.raises(NotAllowed, match="ask operator or admin"):
        principal_of(people["viewer"]).require(Permission.OPERATE, namespace="default")
    # Whoever may not even see a namespace learns of who administers everything alone.
    Membership.objects.create(user=people["approver"], namespace="other", role=Role.ADMIN)
    with pytest.raises(NotAllowed, match=r"; ask admin\.$"):
        principal_of(people["viewer"]).require(Permission.OPERATE, namespace="other")
    nobody = principal_of(User.objects.create_user(username="nobody"))
    assert nobody.whom_to_ask(Permission.AUDIT) == "ask admin."
    assert principal_of(people["admin"]).whom_to_ask(Permission.ADMINISTER) == (
        "ask an administrator."
    )
    User.objects.filter(username="operator").update(is_active=False)
    assert who_may(Permission.OPERATE, namespace="default") == ["admin"]


def test_a_list_of_many_costs_as_many_questions_as_of_one(
    people: Any, django_assert_max_num_queries: Any
) -> None:
    admin = browser_of("admin")
    for number in range(30):
        User.objects.create_user(f"person-{number:02}")
    with django_assert_max_num_queries(14):
        page = admin.get("/people")
    assert page.content.decode().count('id="person-') == 30 + len(Role)
    found = admin.get("/people?q=person-07", headers={"HX-Request": "true"}).content.decode()
    assert found.count('id="person-') == 1
    assert "<html" not in found
    assert "Nobody has this" in admin.get("/people?q=zzz").content.decode()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("default", "not NAMESPACE:ROLE"), ("Default:viewer", "no namespace"), ("a:king", "king")],
)
def test_a_role_is_written_as_namespace_and_role(text: str, wrong: str) -> None:
    with pytest.raises(PeopleInvalid, match=wrong):
        parse_grant(text)
    assert parse_grant("*:policy_author") == Grant("*", Role.POLICY_AUTHOR)


@pytest.mark.parametrize("name", ["", "Ada", "a b", "-a", "a/b", "x" * 64])
def test_a_name_that_no_url_could_hold_is_refused(people: Any, name: str) -> None:
    with pytest.raises(PeopleInvalid, match="username"):
        add_person(name, grants=[], by=admin_of(people))


def test_a_device_is_said_coarsely() -> None:
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1"
    assert device_of(FIREFOX) == "Firefox on Linux"
    assert device_of(phone) == "Safari on iPhone"
    assert device_of("") == "unknown device"


class TestApi:
    """The same over the API."""

    def api(self, user: User) -> Client:
        _, text = create_token(user, principal=principal_of(user), name="t")
        return Client(headers={"Authorization": f"Bearer {text}"})

    def test_add_change_and_end(self, people: Any) -> None:
        api = self.api(people["admin"])
        post = {"content_type": "application/json"}
        made = api.post("/api/v1/users", {"username": "ada", "roles": ["shop:viewer"]}, **post)
        assert made.status_code == 201
        assert made.json()["must_change_password"]
        assert browser_of("ada", made.json()["password"])
        same = api.post("/api/v1/users", {"username": "ada"}, **post)
        assert same.status_code == 409
        wrong = api.post("/api/v1/users", {"username": "bob", "roles": ["x"]}, **post)
        assert (wrong.status_code, wrong.json()["detail"][:6]) == (422, "roles:")
        roles = api.post(
            "/api/v1/users/ada/roles", {"give": ["*:auditor"], "take": ["shop:viewer"]}, **post
        )
        assert roles.json()["roles"] == ["*:auditor"]
        (one,) = api.get("/api/v1/users/ada/sessions").json()
        assert one["device"] == "Firefox on Linux"
        assert api.delete(f"/api/v1/sessions/{one['uid']}").status_code == 204
        assert api.get("/api/v1/users/ada/sessions").json() == []
        assert api.post("/api/v1/users/ada/deactivate").json()["is_active"] is False
        assert api.post("/api/v1/users/ada/activate").json()["is_active"] is True
        names = [row["username"] for row in api.get("/api/v1/users").json()]
        assert {"ada", "admin"} <= set(names)
        assert api.get("/api/v1/users/nobody").status_code == 404

    def test_no_answer_with_a_password_is_kept(self, people: Any) -> None:
        from console.models import KeptAnswer

        api = self.api(people["admin"])
        headers = {"Idempotency-Key": "once"}
        api.post(
            "/api/v1/users", {"username": "ada"}, content_type="application/json", headers=headers
        )
        api.post("/api/v1/users/ada/reset-password", headers=headers)
        assert KeptAnswer.objects.count() == 0

    def test_a_narrowed_token_of_an_administrator_changes_nobody(self, people: Any) -> None:
        user = people["admin"]
        _, text = create_token(
            user, principal=principal_of(user), name="t", permissions=[Permission.VIEW]
        )
        api = Client(headers={"Authorization": f"Bearer {text}"})
        assert api.get("/api/v1/users").status_code == 403
        assert api.post("/api/v1/users/viewer/deactivate").status_code == 403
