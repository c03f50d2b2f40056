"""`lorikeet gateway` and `lorikeet keys`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from lorikeet.gateway.database import open_database
from lorikeet.gateway.keys import KeyStore
from lorikeet.gateway.serve import serve
from lorikeet.gateway.settings import SettingsError, load_settings

app = typer.Typer(pretty_exceptions_enable=False)
keys = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
app.add_typer(keys, name="keys")

_INVALID = 2


@app.command("gateway")
def run_gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 selects a free one.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key (PEM).")] = None,
    dev_tls: Annotated[bool, typer.Option("--dev-tls", help="https with a certificate made for this run.")] = False,
) -> None:
    """Serve the fal protocol. Settings are the variables LORIKEET_GATEWAY_*; the options override them."""
    with _exit_on_error():
        serve(load_settings(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, dev_tls=dev_tls or None))


@keys.command("add")
def add_key(name: Annotated[str, typer.Argument(help="Whose key it is.")]) -> None:
    """Make a key and print it. It cannot be shown again."""
    with _store() as store:
        _, credentials = store.add(name)
        print(credentials)


@keys.command("list")
def list_keys() -> None:
    """List the keys, without their secrets."""
    with _store() as store:
        for key in store.list():
            created = datetime.fromtimestamp(key.created_at).isoformat(" ", "seconds")
            print(f"{key.id}  {created}  {'revoked' if key.revoked_at else 'valid  '}  {key.name}")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The part of the key before the colon.")]) -> None:
    """End the validity of a key. Running gateways know within two seconds."""
    with _store() as store:
        if not store.revoke(key_id):
            print(f"lorikeet: no valid key has the id {key_id}", file=sys.stderr)
            raise typer.Exit(1)


@contextmanager
def _store() -> Iterator[KeyStore]:
    with _exit_on_error():
        engine = open_database(load_settings().database_url)
        try:
            yield KeyStore(engine)
        finally:
            engine.dispose()


@contextmanager
def _exit_on_error() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"lorikeet: {line}", file=sys.stderr)
        raise typer.Exit(_INVALID) from error
