"""`vibes-pipelines callbacks …`: the receiver of the platform's callbacks."""

import logging
from ipaddress import ip_network
from typing import Any

import click

_MIB = 1024 * 1024


class _Network(click.ParamType[Any]):
    """A network such as 192.0.2.0/24, or one address."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return ip_network(value)
        except ValueError as malformed:
            self.fail(f"{malformed}; example: 192.0.2.0/24", param, ctx)


@click.group()
def callbacks() -> None:
    """Take in what the platform posts when something happens there."""


@callbacks.command("serve")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="VIBES_CALLBACKS_HOST",
    show_envvar=True,
)
@click.option(
    "--port",
    default=8700,
    show_default=True,
    type=click.IntRange(0, 65535),
    envvar="VIBES_CALLBACKS_PORT",
    show_envvar=True,
    help="0 takes any free one.",
)
@click.option(
    "--allow",
    multiple=True,
    type=_Network(),
    envvar="VIBES_CALLBACKS_ALLOW",
    show_envvar=True,
    help="Take callbacks from this network only; may be given more than once. Any other source "
    "gets 403, and its event is lost.",
)
@click.option(
    "--proxy",
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
    envvar="VIBES_CALLBACKS_PROXY",
    show_envvar=True,
    help="A reverse proxy whose X-Forwarded-For is believed; may be given more than once.",
)
@click.option(
    "--max-bytes",
    default=_MIB,
    show_default=True,
    type=click.IntRange(min=1),
    envvar="VIBES_CALLBACKS_MAX_BYTES",
    show_envvar=True,
    help="Of a longer body only the beginning is kept, and it is parked.",
)
def serve_callbacks(
    host: str, port: int, allow: tuple[Any, ...], proxy: tuple[str, ...], max_bytes: int
) -> None:
    """Store every callback in the ledger's database until stopped.

    Serves POST /callbacks and below, GET /health and GET /metrics. Nothing is acted on here: the
    sensor callback_inbox_sensor does that.
    """
    from vibes_pipelines.callbacks.receiver import Rules  # noqa: PLC0415 - slow to import
    from vibes_pipelines.callbacks.serve import Place, serve  # noqa: PLC0415 - as above
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - as above

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    rules = Rules(allowed=allow, max_body_bytes=max_bytes)
    serve(Settings().ledger_url, Place(host, port, proxy), rules, _tell)


def _tell(address: str) -> None:
    click.echo(f"{address}/callbacks\n# ready")
