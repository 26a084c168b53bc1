"""People, what they may do, where they are signed in, and their API tokens."""

from django.urls import URLPattern, path

from governance.views import people, sessions, tokens

urlpatterns: list[URLPattern] = [
    path("people", people.people_list, name="people_list"),
    path("people/<str:username>", people.person_detail, name="person_detail"),
    path("people/<str:username>/roles", people.person_roles, name="person_roles"),
    path("people/<str:username>/deactivate", people.person_deactivate, name="person_deactivate"),
    path("people/<str:username>/activate", people.person_activate, name="person_activate"),
    path("people/<str:username>/reset", people.person_reset, name="person_reset"),
    path("people/<str:username>/sign-out", people.person_sign_out, name="person_sign_out"),
    path("profile", sessions.profile, name="profile"),
    path("profile/password", sessions.profile_password, name="profile_password"),
    path("sessions/end-others", sessions.sessions_end_others, name="sessions_end_others"),
    path("sessions/<uuid:uid>/end", sessions.session_end, name="session_end"),
    path("tokens", tokens.token_list, name="token_list"),
    path("tokens/<uuid:uid>/revoke", tokens.token_revoke, name="token_revoke"),
]
