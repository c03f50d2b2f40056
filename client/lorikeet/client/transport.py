"""Triton over gRPC or HTTP, behind one interface."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from lorikeet.client.calls import Arrays, InferCall
from lorikeet.client.triton_error import plain_error
from lorikeet.protocol.errors import INTERNAL, UNAVAILABLE, make_error
from lorikeet.protocol.shorten import shorten

_GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Reconnect within a second of a server's start. The default wait doubles up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Transport(Protocol):
    """A connection to a server. Call its methods in one event loop; every error is a LorikeetError."""

    async def infer(self, call: InferCall) -> Arrays:
        """The requested outputs, by name."""

    async def ready(self, model: str) -> bool:
        """Whether the model is ready for requests."""

    async def close(self) -> None:
        """Close the connection."""


def connect(url: str, headers: Mapping[str, str]) -> Transport:
    """A transport for `grpc[s]://host:port`, `http[s]://host:port` or `host:port` (gRPC).

    `headers`: names in lower case. Call it in the event loop that uses the transport. The first call connects. Raises
    ValueError for another scheme.
    """
    parts = split_url(url)
    if parts.scheme in ("grpc", "grpcs"):
        return GrpcTransport(parts.netloc, headers, ssl=parts.scheme == "grpcs")
    if parts.scheme in ("http", "https"):
        return HttpTransport(parts.netloc + parts.path, headers, ssl=parts.scheme == "https")
    raise ValueError(f"{shorten(url)}: expected a URL with the scheme grpc, grpcs, http or https")


def split_url(url: str) -> SplitResult:
    """The parts of a server's URL; without a scheme it is gRPC."""
    return urlsplit(url if "://" in url else f"grpc://{url}")


def infer_inputs(api: ModuleType, call: InferCall) -> list[Any]:
    """The inputs of a call for `api`, tritonclient's module of a protocol."""
    tensors = []
    for name, array in call.inputs.items():
        tensor = api.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensors.append(tensor.set_data_from_numpy(array))
    return tensors


class _TritonTransport:
    """What gRPC and HTTP share: `api` is tritonclient's module of the protocol."""

    _connection_errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, api: ModuleType, address: str, headers: Mapping[str, str], **options: object) -> None:
        self._api = api
        self._client = api.aio.InferenceServerClient(address, **options)
        self._headers = dict(headers)

    async def infer(self, call: InferCall) -> Arrays:
        inputs = infer_inputs(self._api, call)
        with self._lorikeet_errors():
            result = await self._client.infer(
                call.model,
                inputs,
                outputs=[self._api.InferRequestedOutput(name) for name in call.outputs],
                request_id=call.request_id,
                headers=dict(self._headers),  # a copy: tritonclient adds this call's length to it
                parameters=call.parameters,
            )
        outputs = {name: result.as_numpy(name) for name in call.outputs}
        missing = [name for name, array in outputs.items() if array is None]
        if missing:
            raise make_error(f"the server's reply lacks {', '.join(missing)}", INTERNAL)
        return outputs

    async def ready(self, model: str) -> bool:
        with self._lorikeet_errors():
            return bool(await self._client.is_model_ready(model, headers=dict(self._headers)))

    async def close(self) -> None:
        await self._client.close()

    @contextmanager
    def _lorikeet_errors(self) -> Iterator[None]:
        try:
            yield
        except InferenceServerException as error:
            raise make_error(*plain_error(error.message() or "no message", error.status() or INTERNAL)) from error
        except self._connection_errors as error:
            raise make_error(str(error) or type(error).__name__, UNAVAILABLE) from error


class GrpcTransport(_TritonTransport):
    """KServe v2 over gRPC."""

    def __init__(self, address: str, headers: Mapping[str, str], ssl: bool) -> None:
        super().__init__(tritonclient.grpc, address, headers, ssl=ssl, channel_args=_GRPC_OPTIONS)


class HttpTransport(_TritonTransport):
    """KServe v2 over HTTP, tensors in the binary extension."""

    def __init__(self, address: str, headers: Mapping[str, str], ssl: bool) -> None:
        # Imported here because it loads gevent and aiohttp, which gRPC does not need.
        import aiohttp
        import tritonclient.http
        import tritonclient.http.aio

        self._connection_errors = (OSError, aiohttp.ClientError)
        # conn_timeout bounds the whole request (60 s by default); a generation may take longer.
        super().__init__(tritonclient.http, address, headers, ssl=ssl, conn_timeout=None)
