"""Settings of the server, read from `LORIKEET_*` environment variables once, at start.

A value that cannot be right is an error at start, and so is a misspelt name: a setting that is silently ignored is
worse than none. Every stage reads the same environment, so no setting has to be passed between processes.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lorikeet.net.host_credentials import read_host_credentials

PREFIX = "LORIKEET_"
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
GIB = 1 << 30


ROOT = Path(__file__).resolve().parents[1]


def tools_folder() -> Path:
    """Where set-up put Triton; the Makefile says, and a copied tree finds its own."""
    return Path(os.environ.get(PREFIX + "TOOLS", ROOT / ".tools"))


def demo_folder() -> Path:
    """The demo model and its LoRAs: what a request may name when nothing else was allowed."""
    return ROOT / "deploy" / "demo_model" / "weights"


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class SettingsError(ValueError):
    """One or more settings are wrong; the message is one line for each."""


class Settings(BaseSettings):
    """One field a variable: `http_port` is `LORIKEET_HTTP_PORT`. The descriptions are the README's table."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    http_port: Port = Field(8000, description="KServe HTTP port; 0 takes a free one.")
    grpc_port: Port = Field(8001, description="KServe gRPC port; 0 takes a free one.")
    metrics_port: Port = Field(8002, description="Prometheus port; 0 takes a free one.")

    engine: Literal["auto", "torch"] = Field("auto", description="What runs the networks: the best one, or `torch`.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` is CUDA where there is one.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="`auto`: float16 on CUDA; on a CPU bfloat16 where it is native (avx512_bf16, "
        "AMX), else float32. bfloat16 that is not native halves the memory, and computes in float32.",
    )
    threads: int = Field(0, ge=0, description="Threads for one network; 0 is one for each physical core.")
    weights_bytes: ByteSize = Field(
        ByteSize(8 * GIB),
        description="Weights that each stage holds, least recently used first out; a request that needs more waits for "
        "those that run.",
    )
    calls_per_turn: int = Field(
        0, ge=0, description="Calls that one set of weights makes before another one's turn; 0 is the engine's own."
    )
    block_rows: int = Field(
        0, ge=0, description="Rows in one UNet call; 0 is 2 with guidance and 1 without. A GPU gains from 8 or more."
    )

    store: Path = Field(
        Path("~/.cache/lorikeet"), description="Folder of downloaded and sent files, kept by their SHA-256."
    )
    store_bytes: ByteSize = Field(
        ByteSize(50 * GIB), description="Its size, least recently used first out; files in use stay."
    )
    local_paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        default_factory=lambda: (demo_folder(),),
        description="Folders, colon-separated, from which a request may name checkpoints, LoRAs and images.",
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Hosts (or host:port), comma-separated, that may be fetched although private or plain http."
    )
    tokens: Path | None = Field(
        None,
        description='File, readable by you alone, of gated hosts\' tokens: `{"huggingface.co": "hf_…"}`; each is '
        "sent to its host only, over https.",
    )
    fetch_seconds: Positive = Field(600, description="Longest time for one download.")
    max_request_bytes: ByteSize = Field(
        ByteSize(256 << 20), description="Longest REQUEST, the input as JSON; FILES and IMAGE do not count."
    )
    max_file_bytes: ByteSize = Field(ByteSize(20 * GIB), description="Largest weight file that is fetched or sent.")
    max_image_bytes: ByteSize = Field(ByteSize(50 << 20), description="Largest encoded image.")
    max_pixels: Positive = Field(2048 * 2048, description="Largest picture, width times height.")
    max_in_flight: Annotated[int, Field(ge=1, le=512)] = Field(
        64, description="Requests in the server at once; one more is UNAVAILABLE."
    )

    max_running: Annotated[int, Field(ge=1, le=512)] = Field(
        16,
        description="Requests in the step loop at once; others wait, by priority, then as they came.",
    )
    memory_bytes: ByteSize = Field(
        default_factory=lambda: ByteSize(_machine_bytes() * 3 // 4),
        description="Memory for the pictures and latents of all requests in flight (weights have their own).",
    )

    start_seconds: Positive = Field(300, description="Longest time for a start, all stages ready.")
    stall_seconds: Positive = Field(60, description="A stage silent for so long is taken for dead.")
    stop_seconds: Positive = Field(5, description="Time that running requests get to end after Ctrl-C.")

    @field_validator("local_paths", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("fetch_allow", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return tuple(p.strip().lower() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("local_paths")
    @classmethod
    def _resolve_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in value:
            if not folder.expanduser().is_dir():
                raise ValueError(f"{folder} is not a folder")
        return tuple(folder.expanduser().resolve() for folder in value)

    @field_validator("tokens")
    @classmethod
    def _readable_tokens(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()
        read_host_credentials(path)
        return path

    @field_validator("store")
    @classmethod
    def _absolute_store(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("local_paths", "store", "tokens")
    @classmethod
    def _ascii_paths(cls, value: Any) -> Any:
        """Triton's stub starts Python in the C locale, whatever the environment says: it can open no other path."""
        for path in value if isinstance(value, tuple) else (value,):
            if not str(path).isascii():
                raise ValueError(f"{path}: Triton's Python opens paths of ASCII letters only")
        return value

    @field_validator("host")
    @classmethod
    def _valid_host(cls, value: str) -> str:
        if value != "localhost":
            ipaddress.ip_address(value)
        return value

    @model_validator(mode="after")
    def _distinct_ports(self) -> Settings:
        ports = [port for port in (self.http_port, self.grpc_port, self.metrics_port) if port]
        if len(set(ports)) != len(ports):
            raise ValueError("http_port, grpc_port and metrics_port must differ")
        return self


# Set by the supervisor and the Makefile for the processes they start; not for people, so not among the settings.
INTERNAL = {"JOB_TABLE", "TOOLS"}


def load_settings() -> Settings:
    """The settings of this environment.

    Raises SettingsError: one line for each variable that is wrong or unknown.
    """
    known = {name.upper() for name in Settings.model_fields}
    problems = []
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known | INTERNAL:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            problems.append(f"{variable}: no such setting" + (f"; did you mean {PREFIX}{close[0]}?" if close else ""))
    if not problems:
        try:
            return Settings()
        except ValidationError as error:
            for item in error.errors():
                name = PREFIX + str(item["loc"][0]).upper() if item["loc"] else PREFIX + "*"
                problems.append(f"{name}: {item['msg'].removeprefix('Value error, ')}")
    raise SettingsError("\n".join(problems))


def job_table_path() -> Path:
    """Where the job table of this server lies; the supervisor sets it, a server started by hand has one a user."""
    given = os.environ.get(PREFIX + "JOB_TABLE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"lorikeet-{os.getuid()}.job_table"
