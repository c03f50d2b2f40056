"""The gateway's settings, from environment variables `LORIKEET_GATEWAY_*`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AnyHttpUrl,
    ByteSize,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lorikeet.gateway.watched_servers import WatchedServer, watched_servers
from lorikeet.schema.nearest import nearest

PREFIX = "LORIKEET_GATEWAY_"
_NEAR = 0.6  # similarity of a name that is likely meant
LOOPBACK = ("127.0.0.1", "::1", "localhost")

Words = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """A setting has an invalid value. The message names its variable."""


class GatewaySettings(BaseSettings):
    """One field for each variable: `max_waiting` is `LORIKEET_GATEWAY_MAX_WAITING`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address on which the gateway listens. Others than loopback need a key.")
    port: int = Field(8080, ge=0, le=65535, description="Port of the gateway; 0 selects a free port.")
    public_url: AnyHttpUrl | None = Field(
        None, description="Address under which clients reach the gateway. Returned links begin with it."
    )
    servers: Words = Field(
        ("grpc://127.0.0.1:8001",), description="Comma-separated URLs of the Triton servers, gRPC or HTTP."
    )
    status_urls: Words | None = Field(
        None,
        description="Comma-separated URLs of the servers' supervisors, in the order of the servers, for `/health` and "
        "`/metrics`; empty for none. Default: port 8003 of each server's host.",
    )
    metrics_urls: Words | None = Field(
        None,
        description="Comma-separated URLs of the servers' Prometheus ports, in the order of the servers, for "
        "`/metrics`; empty for none. Default: port 8002 of each server's host.",
    )
    slots: PositiveInt = Field(8, description="Requests that the gateway sends to one Triton server at a time.")

    data: Path = Field(
        Path("~/.local/share/lorikeet"), description="Folder of the SQLite file and of uploaded and generated files."
    )
    database: str | None = Field(
        None,
        description="SQLAlchemy URL of a database that several gateways share: `postgresql+psycopg://...`. "
        "Default: a SQLite file in `LORIKEET_GATEWAY_DATA`.",
    )
    gateway_id: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of this gateway, different for each of those that share a database. Default: the host name.",
    )
    files: str | None = Field(
        None,
        description="fsspec URL of the folder for files: `s3://bucket/prefix`. Default: `files` in the data folder.",
    )
    keep_files_s: PositiveFloat = Field(
        7 * 86400, description="Lifetime of a file in seconds, unless a request says otherwise."
    )
    keep_results_s: PositiveFloat = Field(
        7 * 86400, description="Lifetime of an ended request in seconds. Its status is NOT_FOUND afterwards."
    )

    max_waiting: PositiveInt = Field(10_000, description="Waiting requests; further ones get 429.")
    requests_per_key: int = Field(
        0, ge=0, description="Waiting and running requests of one key; further ones get 429. 0 means no limit."
    )
    max_attempts: PositiveInt = Field(
        10, description="Times that a request runs when the server fails. `X-Fal-No-Retry` sets 1."
    )
    max_body_bytes: ByteSize = Field(ByteSize(64 << 20), description="Largest JSON body of a request.")
    max_upload_bytes: ByteSize = Field(ByteSize(512 << 20), description="Largest uploaded file.")
    webhook_allow: Words = Field(
        (), description="Comma-separated hosts (`host` or `host:port`) of webhooks that may be private or use http."
    )
    cors_origins: Words = Field(
        (),
        description="Comma-separated origins of web pages that may call the gateway, beside those of this machine; "
        "`*` means all.",
    )

    tls_cert: Path | None = Field(None, description="Certificate chain (PEM); with `LORIKEET_GATEWAY_TLS_KEY`: https.")
    tls_key: Path | None = Field(None, description="Private key (PEM) of the certificate.")
    dev_tls: bool = Field(
        False,
        description="https with a certificate that the gateway makes. Its authority is `ca.pem` in the data folder.",
    )

    @field_validator("servers", "status_urls", "metrics_urls", "webhook_allow", "cors_origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("status_urls", "metrics_urls")
    @classmethod
    def _one_for_each_server(cls, value: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        servers = info.data.get("servers", ())
        if value and len(value) != len(servers):
            raise ValueError(f"{len(value)} URLs for {len(servers)} servers: name one for each, in the same order")
        return value

    @field_validator("data")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine reach the gateway."""
        return self.host in LOOPBACK

    @property
    def watched_servers(self) -> list[WatchedServer]:
        """The servers with the URLs of their health and metrics."""
        return watched_servers(self.servers, self.status_urls, self.metrics_urls)

    @property
    def is_tls(self) -> bool:
        return self.dev_tls or self.tls_cert is not None

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data / 'gateway.sqlite'}"

    @property
    def is_shared(self) -> bool:
        """Whether several gateways may share the database."""
        return not self.database_url.startswith("sqlite")

    @property
    def executor_id(self) -> str:
        """Whose requests a restart continues. A gateway alone has a fixed name, as its host name may change."""
        return self.gateway_id if self.is_shared else "local"

    @property
    def files_url(self) -> str:
        return self.files or (self.data / "files").as_uri()

    @property
    def base_url(self) -> str:
        """What returned links begin with, without a slash at the end."""
        if self.public_url is not None:
            return str(self.public_url).rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


def load_settings(**overrides: object) -> GatewaySettings:
    """The settings of the environment; `overrides` win.

    Raises SettingsError with one line for each variable that is wrong or unknown.
    """
    problems = [_unknown(variable) for variable in os.environ if _is_unknown(variable)]
    if not problems:
        try:
            return GatewaySettings(**{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            for item in error.errors():
                name = str(item["loc"][0]).upper() if item["loc"] else "*"
                problems.append(f"{PREFIX}{name}: {item['msg'].removeprefix('Value error, ')}")
    raise SettingsError("\n".join(problems))


def _is_unknown(variable: str) -> bool:
    return variable.startswith(PREFIX) and variable.removeprefix(PREFIX).lower() not in GatewaySettings.model_fields


def _unknown(variable: str) -> str:
    near = nearest(variable.removeprefix(PREFIX).lower(), GatewaySettings.model_fields, _NEAR)
    return f"{variable}: no such setting" + (f"; did you mean {PREFIX}{near.upper()}?" if near else "")
