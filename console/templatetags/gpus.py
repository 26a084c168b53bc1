"""Links of the page on GPUs that keep its filter."""

from typing import Any

from django import template

register = template.Library()


@register.simple_tag(takes_context=True)
def gpu_query(context: template.Context, **changes: Any) -> str:
    """The page's query with some parameters changed; an empty one is dropped."""
    query = context["request"].GET.copy()
    for name in ("page", "format", "table"):
        query.pop(name, None)
    for name, value in changes.items():
        if value:
            query[name] = str(value)
        else:
            query.pop(name, None)
    return str(query.urlencode())
