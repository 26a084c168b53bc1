"""Who may do what: API tokens."""

from django.urls import URLPattern, path

from governance.views import tokens

urlpatterns: list[URLPattern] = [
    path("tokens", tokens.token_list, name="token_list"),
    path("tokens/<uuid:uid>/revoke", tokens.token_revoke, name="token_revoke"),
]
