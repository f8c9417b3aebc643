"""`vibes-pipelines callbacks serve`: the receiver of the platform's callbacks, and of sign-ups."""

import logging
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

_MIB = 1024 * 1024
_Function = Callable[..., None]
_FILE = click.Path(path_type=Path, dir_okay=False)


class _Network(click.ParamType[Any]):
    """A network such as 192.0.2.0/24, or one address."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return ip_network(value)
        except ValueError as malformed:
            self.fail(f"{malformed}; example: 192.0.2.0/24", param, ctx)


def _option(name: str, help_text: str, **more: Any) -> Callable[[_Function], _Function]:
    """An option that may stand in the environment as well."""
    variable = f"VIBES_CALLBACKS_{name.strip('-').replace('-', '_').upper()}"
    return click.option(name, envvar=variable, show_envvar=True, help=help_text, **more)


@click.command("serve")
@_option("--host", "Where to listen.", default="127.0.0.1", show_default=True)
@_option(
    "--port",
    "0 takes any free one.",
    default=8700,
    show_default=True,
    type=click.IntRange(0, 65535),
)
@_option(
    "--allow",
    "Take callbacks from this network only; may be given more than once. Any other source "
    "gets 403, and its event is lost.",
    multiple=True,
    type=_Network(),
)
@_option(
    "--proxy",
    "A reverse proxy whose X-Forwarded-For is believed; may be given more than once.",
    multiple=True,
    default=["127.0.0.1"],
    show_default=True,
)
@_option(
    "--max-bytes",
    "Of a longer body only the beginning is kept, and it is parked.",
    default=_MIB,
    show_default=True,
    type=click.IntRange(min=1),
)
@_option(
    "--processes",
    "How many processes share the address.",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
)
@_option(
    "--tls-certificate", "Serve HTTPS with this certificate (PEM, with its chain).", type=_FILE
)
@_option("--tls-key", "The key of --tls-certificate (PEM).", type=_FILE)
@_option(
    "--client-ca",
    "Take callbacks only from clients with a certificate of this authority (PEM) in a name of "
    "--client-name.",
    type=_FILE,
)
@_option(
    "--client-name",
    "A name that a client's certificate may have; may be given more than once. Default: the "
    "platform's.",
    multiple=True,
)
@click.option(
    "--signup",
    is_flag=True,
    envvar="VIBES_CALLBACKS_SIGNUP",
    show_envvar=True,
    help="Take web sign-ups too, as the section `signup` of sync.yaml says.",
)
def serve_callbacks(  # noqa: PLR0913 - one parameter per option
    *,
    host: str,
    port: int,
    allow: tuple[Any, ...],
    proxy: tuple[str, ...],
    max_bytes: int,
    processes: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    client_name: tuple[str, ...],
    signup: bool,
) -> None:
    """Store every callback in the ledger's database until stopped.

    Serves POST /callbacks and below, GET /health and GET /metrics; with --signup, POST /signup;
    with TRIBE_WEBHOOK_SECRET, POST /tribe/webhooks.
    Callbacks are not acted on here: the sensor callback_inbox_sensor does that.
    """
    from vibes_pipelines.callbacks.receiver import Rules  # noqa: PLC0415 - slow to import
    from vibes_pipelines.callbacks.serve import Place, serve  # noqa: PLC0415 - as above
    from vibes_pipelines.callbacks.tribe import TribeGate  # noqa: PLC0415 - as above
    from vibes_pipelines.settings import Settings  # noqa: PLC0415 - as above

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    tls = _tls(tls_certificate, tls_key, client_ca, client_name)
    serve(
        settings.ledger_url,
        Place(host, port, proxy, processes, tls),
        Rules(allowed=allow, max_body_bytes=max_bytes),
        partial(_tell, has_signup=signup, has_tribe=settings.tribe_webhook is not None),
        _checked_signup(settings) if signup else None,
        TribeGate(settings.tribe_webhook) if settings.tribe_webhook else None,
    )


def _checked_signup(settings: Any) -> Any:
    """Opens sign-ups later; what is missing for them is said now."""
    from vibes_pipelines.stages.signup import declared_signup, open_signup  # noqa: PLC0415 - slow to import
    from vibes_pipelines.sync_config import load_sync_config  # noqa: PLC0415 - as above

    declared_signup(load_sync_config(settings.sync_config))
    _ = settings.api
    return open_signup


def _tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None, names: tuple[str, ...]
) -> Any:
    from vibes_pipelines.callbacks.tls import PLATFORM_NAME, Tls  # noqa: PLC0415 - as above

    if certificate is None and key is None:
        if client_ca is not None or names:
            msg = "--client-ca and --client-name need --tls-certificate and --tls-key"
            raise click.UsageError(msg)
        return None
    if certificate is None or key is None:
        msg = "--tls-certificate and --tls-key belong together"
        raise click.UsageError(msg)
    if names and client_ca is None:
        msg = "--client-name needs --client-ca"
        raise click.UsageError(msg)
    return Tls(certificate, key, client_ca, names or (PLATFORM_NAME,))


def _tell(address: str, *, has_signup: bool, has_tribe: bool) -> None:
    click.echo(f"{address}/callbacks")
    if has_signup:
        click.echo(f"{address}/signup")
    if has_tribe:
        click.echo(f"{address}/tribe/webhooks")
    click.echo("# ready")
