"""Runs the gateway until a signal ends it."""

from __future__ import annotations

import socket

import uvicorn

from lorikeet.gateway.app import create_app
from lorikeet.gateway.database import open_database
from lorikeet.gateway.dev_tls import dev_certificate
from lorikeet.gateway.keys import KeyStore
from lorikeet.gateway.settings import GatewaySettings, SettingsError

_GRACE_SECONDS = 5  # until open connections are closed at the end


def serve(settings: GatewaySettings) -> None:
    """Listen and answer. Raises SettingsError when the gateway would be open to others without a key."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    has_keys = _has_keys(settings)
    if not has_keys and not settings.is_loopback:
        raise SettingsError(
            f"LORIKEET_GATEWAY_HOST: {settings.host} is open to other machines, and no API key exists: "
            "run `lorikeet keys add NAME` first"
        )
    listener = _listener(settings)
    settings = settings.model_copy(update={"port": listener.getsockname()[1]})
    certificate = dev_certificate(settings.data, settings.host) if settings.dev_tls else None
    config = uvicorn.Config(
        create_app(settings),
        ssl_certfile=certificate.chain if certificate else settings.tls_cert,
        ssl_keyfile=certificate.key if certificate else settings.tls_key,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        server_header=False,
    )
    server = _Announced(config, _announcement(settings, has_keys))
    server.run(sockets=[listener])


class _Announced(uvicorn.Server):
    """Prints a line when it is ready."""

    def __init__(self, config: uvicorn.Config, line: str) -> None:
        super().__init__(config)
        self._line = line

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._line, flush=True)


def _announcement(settings: GatewaySettings, has_keys: bool) -> str:
    keys = "" if has_keys else "; no API key is set, so only this machine may connect"
    return f"lorikeet gateway: ready at {settings.base_url}{keys}"


def _has_keys(settings: GatewaySettings) -> bool:
    engine = open_database(settings.database_url)
    try:
        return not KeyStore(engine).is_empty()
    finally:
        engine.dispose()


def _listener(settings: GatewaySettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(found[4][:2], family=found[0], backlog=2048)
        # Connections inherit it. asyncio does not set it on them, and without it each answer takes 40 ms longer: its
        # body waits until the client acknowledges its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        raise SettingsError(f"LORIKEET_GATEWAY_PORT: cannot listen on {address}: {error.strerror}") from error
    return listener
