"""Settings of the server, read from `LORIKEET_*` environment variables once, at start.

A wrong value or a misspelt name is an error at start. Every stage reads the same environment, so no process passes
settings to another.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, PlainValidator, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lorikeet.net.host_credentials import read_host_credentials

PREFIX = "LORIKEET_"


def _path(value: object) -> Path:
    """Triton's stub has an ASCII file system encoding, in which a surrogate stands for each other byte of a path. The
    type that pydantic has for paths refuses such texts."""
    if isinstance(value, str | Path):
        return Path(value)
    raise ValueError("expected a path")


AnyPath = Annotated[Path, PlainValidator(_path)]
Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
GIB = 1 << 30


ROOT = Path(__file__).resolve().parents[1]


def tools_folder() -> Path:
    """The folder where set-up installed Triton: `LORIKEET_TOOLS`, else `.tools` in this repository."""
    return Path(os.environ.get(PREFIX + "TOOLS", ROOT / ".tools"))


def demo_folder() -> Path:
    """The folder of the demo model and its LoRAs; the default of `local_paths`."""
    return ROOT / "deploy" / "demo_model" / "weights"


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class SettingsError(ValueError):
    """One or more settings are wrong. The message has one line for each."""


class Settings(BaseSettings):
    """One field for each variable: `http_port` is `LORIKEET_HTTP_PORT`. The README's table shows the descriptions."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="IP address (or `localhost`) on which the server listens.")
    http_port: Port = Field(8000, description="KServe HTTP port; 0 selects a free port.")
    grpc_port: Port = Field(8001, description="KServe gRPC port; 0 selects a free port.")
    metrics_port: Port = Field(8002, description="Prometheus port of the stages; 0 selects a free port.")
    status_port: Port = Field(
        8003, description="Port of the supervisor's `/health` and `/metrics`; 0 selects a free port."
    )

    engine: Literal["auto", "torch", "openvino", "tensorrt"] = Field(
        "auto",
        description="`auto` runs exported graphs in OpenVINO on a CPU and in TensorRT on a GPU (see `make export`), "
        "the rest in torch.",
    )
    unverified_plans: bool = Field(
        False, description="Run TensorRT plans that were not compared with torch on this kind of GPU."
    )
    static_shapes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated sizes, such as `512x512` (width, height). OpenVINO compiles a separate model "
        "for each: calls are faster, and take more memory.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` selects CUDA if torch sees a CUDA device, else the CPU."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="`auto`: float16 on CUDA, bfloat16 on a CPU with avx512_bf16 or AMX, else float32. "
        "On other CPUs, bfloat16 halves the weights' memory and computes in float32.",
    )
    cuda_graphs: bool = Field(
        True, description="On a GPU, launch each call of UNet and ControlNets at once, as a CUDA graph."
    )
    threads: int = Field(
        0, ge=0, description="Threads that run one network; 0 means one thread for each physical core."
    )
    weights_bytes: ByteSize | None = Field(
        None,
        description="Memory for weights in each stage; or half of the GPU's memory. The stage evicts "
        "the least recently used weights first. A request waits while running requests use the memory that it needs. "
        "A request whose networks do not fit together is refused.",
    )
    calls_per_turn: int = Field(
        0,
        ge=0,
        description="Engine calls with one set of weights before another set's turn; 0 is the engine's default.",
    )
    block_rows: int = Field(
        0, ge=0, description="Rows in one UNet call; 0 means 2 with guidance and 1 without. On a GPU, set 8 or more."
    )

    store: AnyPath = Field(
        Path("~/.cache/lorikeet"), description="Folder that keeps downloaded and sent files, named by their SHA-256."
    )
    store_bytes: ByteSize = Field(
        ByteSize(50 * GIB),
        description="Size of `LORIKEET_STORE`. The least recently used files are evicted; files in use stay.",
    )
    artifacts: AnyPath | None = Field(
        None,
        description="Folder of the exported graphs; default: `LORIKEET_STORE` with `-artifacts` added to its name.",
    )
    compiled_bytes: ByteSize = Field(
        ByteSize(2 * GIB),
        description="Size of the folder `compiled` in `LORIKEET_ARTIFACTS`: models that OpenVINO compiled, which a "
        "restart then reads. A model that does not fit is not kept. 0 keeps none.",
    )
    local_paths: Annotated[tuple[AnyPath, ...], NoDecode] = Field(
        default_factory=lambda: (demo_folder(),),
        description="Colon-separated folders. A request may name checkpoints, LoRAs and images inside them.",
    )
    safety_checker: AnyPath | None = Field(
        None,
        description="Folder of the safety checker of Stable Diffusion 1.x (`config.json`, `model.safetensors`). "
        "Without it, `enable_safety_checker` is refused.",
    )
    fetch_allow: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Comma-separated hosts (`host` or `host:port`) that may have private addresses or use http.",
    )
    tokens: AnyPath | None = Field(
        None,
        description='JSON file of host tokens that only you can read (mode 600): `{"huggingface.co": "hf_…"}`. A host '
        "token is sent only to its host, over https.",
    )
    fetch_seconds: Positive = Field(600, description="Time limit of one download, in seconds.")
    max_request_bytes: ByteSize = Field(
        ByteSize(256 << 20), description="Largest REQUEST, the input as JSON. FILES and IMAGE do not count."
    )
    max_file_bytes: ByteSize = Field(ByteSize(20 * GIB), description="Largest weight file that is downloaded or sent.")
    max_image_bytes: ByteSize = Field(ByteSize(50 << 20), description="Largest encoded image.")
    max_pixels: Positive = Field(2048 * 2048, description="Largest picture, in pixels (width times height).")
    vae_tile_above: Annotated[int, Field(ge=256)] = Field(
        2048,
        description="Longest side, in pixels, that the VAE processes in one call. It processes a picture with a longer "
        "side in tiles of half this length.",
    )
    max_in_flight: Annotated[int, Field(ge=1, le=512)] = Field(
        64, description="Largest number of requests in the server. Further requests get UNAVAILABLE at once."
    )

    max_running: Annotated[int, Field(ge=1, le=512)] = Field(
        16,
        description="Largest number of requests in the step loop. Others wait, by priority, then in order of arrival.",
    )
    metadata: Literal["on", "off"] = Field(
        "on", description="`on` puts the receipt into the PNG's or JPEG's metadata. It holds the prompt."
    )
    default_timeout_s: Positive = Field(
        3600,
        description="Time limit, in seconds, of a request without `job_token` and `job_timeout_ms`, as curl sends it.",
    )
    memory_bytes: ByteSize = Field(
        default_factory=lambda: ByteSize(_machine_bytes() * 3 // 4),
        description="Memory for the pictures, latents and ControlNet residuals of all requests in flight. "
        "Weights are not included.",
    )

    start_seconds: Positive = Field(300, description="Time limit for the start of all stages, in seconds.")
    stall_seconds: Positive = Field(
        60, description="The supervisor restarts the server when a stage sends no heartbeat for this many seconds."
    )
    stop_seconds: Positive = Field(5, description="Seconds that running requests get to finish after Ctrl-C.")

    @field_validator("local_paths", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("static_shapes")
    @classmethod
    def _sizes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for size in value:
            width, _, height = size.partition("x")
            if not (width.isdecimal() and height.isdecimal() and int(width) % 8 == int(height) % 8 == 0):
                raise ValueError(f"{size}: expected width x height in multiples of 8 pixels, such as 512x512")
        return value

    @field_validator("fetch_allow", "static_shapes", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return tuple(p.strip().lower() for p in value.split(",") if p.strip()) if isinstance(value, str) else value

    @field_validator("local_paths")
    @classmethod
    def _resolve_paths(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in value:
            if not folder.expanduser().is_dir():
                raise ValueError(f"{folder} is not a folder: name existing folders, separated by colons")
        return tuple(folder.expanduser().resolve() for folder in value)

    @field_validator("safety_checker")
    @classmethod
    def _existing_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_dir():
            raise ValueError(f"{value} is not a folder: name the folder of the safety checker's files")
        return None if value is None else value.expanduser().resolve()

    @field_validator("tokens")
    @classmethod
    def _readable_tokens(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        path = value.expanduser().absolute()
        read_host_credentials(path)
        return path

    @field_validator("store", "artifacts")
    @classmethod
    def _absolute_folder(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("host")
    @classmethod
    def _valid_host(cls, value: str) -> str:
        if value != "localhost":
            ipaddress.ip_address(value)
        return value

    @property
    def artifacts_folder(self) -> Path:
        return self.artifacts or self.store.parent / f"{self.store.name}-artifacts"

    @property
    def compiled_folder(self) -> Path:
        return self.artifacts_folder / "compiled"

    @model_validator(mode="after")
    def _distinct_ports(self) -> Settings:
        ports = [port for port in (self.http_port, self.grpc_port, self.metrics_port, self.status_port) if port]
        if len(set(ports)) != len(ports):
            raise ValueError("http_port, grpc_port, metrics_port and status_port must differ")
        return self


# The supervisor and the Makefile set these variables for the processes that they start. Users do not set them.
INTERNAL = {"JOB_TABLE", "TOOLS"}
_OF_GATEWAY = "GATEWAY_"  # the gateway checks its settings itself; both may run in one environment


def load_settings() -> Settings:
    """Read the settings from this environment.

    Raises SettingsError with one line for each variable that is wrong or unknown.
    """
    known = {name.upper() for name in Settings.model_fields}
    problems = []
    for variable in os.environ:
        name = variable.removeprefix(PREFIX)
        if variable.startswith(PREFIX) and name not in known | INTERNAL and not name.startswith(_OF_GATEWAY):
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
    """The job table's file: `LORIKEET_JOB_TABLE`, which the supervisor sets, else one file for each user."""
    given = os.environ.get(PREFIX + "JOB_TABLE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"lorikeet-{os.getuid()}.job_table"
