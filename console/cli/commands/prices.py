"""`clearance price`: what a GPU-hour or a million tokens costs."""

import click

from console.cli.commands.get import get
from console.cli.invocation import (
    Invocation,
    connection_options,
    output_option,
    pass_invocation,
)
from console.cli.printing import is_document, print_document
from console.cli.resources import price_text

KINDS = ("gpu", "input_token", "output_token")


@click.group()
def price() -> None:
    """The price table; an unknown price denies."""


@price.command("set")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.argument("amount")
@output_option("name", "json", "yaml")
@connection_options
@pass_invocation
def set_price(invocation: Invocation, *, kind: str, name: str, amount: str, form: str) -> None:
    """Set a price from now on: AMOUNT is money, such as "2.50 USD" or "30 cents".

    It is per GPU-hour (kind gpu) or per million tokens (input_token, output_token).
    """
    from goals.domain.budget import BudgetSyntaxError, parse_budget  # noqa: PLC0415 - rarely used

    try:
        amounts = parse_budget(amount).amounts()
    except BudgetSyntaxError as error:
        raise click.UsageError(f"AMOUNT: {error}") from None
    if set(amounts) != {"micro_usd"}:
        raise click.UsageError('AMOUNT: write money, such as "2.50 USD".')
    made = invocation.client.post(
        "/prices", {"kind": kind, "name": name, "micro_usd": amounts["micro_usd"]}
    )
    if is_document(form):
        print_document(made, form=form)
    else:
        click.echo(f"price/{made['kind']}/{made['name']} {price_text(made)}")


@price.command("list")
@output_option()
@connection_options
@click.pass_context
def list_prices(context: click.Context, *, form: str) -> None:
    """List the prices; the newest of a kind and name counts."""
    context.invoke(get, kind="prices", form=form)
