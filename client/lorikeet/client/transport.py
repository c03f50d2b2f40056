"""The two ways to a Triton server, gRPC and HTTP, behind one small protocol."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Protocol
from urllib.parse import urlsplit

import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from lorikeet.protocol.errors import make_error
from lorikeet.protocol.tensors import IMAGE_MODEL, InferCall, Tensors

_ENSEMBLE_PREFIX = f"in ensemble '{IMAGE_MODEL}', "

_GRPC_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes up is noticed within a second; the default doubles up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class Transport(Protocol):
    """A connection to a server. Methods belong to one event loop; every error is a LorikeetError."""

    async def infer(self, call: InferCall) -> Tensors:
        """The outputs that the call asks for, by name."""

    async def ready(self, model: str) -> bool:
        """Whether the server says that the model is ready."""

    async def close(self) -> None:
        """Release the connection."""


def connect(url: str, headers: Mapping[str, str]) -> Transport:
    """A transport for `grpc[s]://host:port`, `http[s]://host:port` or `host:port` (gRPC); connects lazily.

    Must be called in the event loop that will use it. Raises ValueError for another scheme.
    """
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    if parts.scheme in ("grpc", "grpcs"):
        return GrpcTransport(parts.netloc, headers, ssl=parts.scheme == "grpcs")
    if parts.scheme in ("http", "https"):
        return HttpTransport(parts.netloc + parts.path, headers, ssl=parts.scheme == "https")
    raise ValueError(f"{url}: the scheme must be grpc, grpcs, http or https")


class _TritonTransport:
    """What gRPC and HTTP share: `api` is tritonclient's module of the protocol."""

    _connection_errors: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, api: ModuleType, address: str, headers: Mapping[str, str], **options: object) -> None:
        self._api = api
        self._client = api.aio.InferenceServerClient(address, **options)
        self._headers = {name.lower(): value for name, value in headers.items()}

    async def infer(self, call: InferCall) -> Tensors:
        inputs = []
        for name, array in call.inputs.items():
            tensor = self._api.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        with self._lorikeet_errors():
            result = await self._client.infer(
                call.model,
                inputs,
                outputs=[self._api.InferRequestedOutput(name) for name in call.outputs],
                request_id=call.request_id,
                headers=dict(self._headers),  # a copy: tritonclient adds this call's length to it
                parameters=call.parameters,
            )
        tensors = {name: result.as_numpy(name) for name in call.outputs}
        missing = [name for name, array in tensors.items() if array is None]
        if missing:
            raise make_error(f"the server left out {', '.join(missing)}", "INTERNAL")
        return tensors

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
            message = (error.message() or "no message").removeprefix(_ENSEMBLE_PREFIX)
            raise make_error(message, error.status() or "INTERNAL") from error
        except self._connection_errors as error:
            raise make_error(str(error) or type(error).__name__, "UNAVAILABLE") from error


class GrpcTransport(_TritonTransport):
    """KServe v2 over gRPC."""

    def __init__(self, address: str, headers: Mapping[str, str], ssl: bool) -> None:
        super().__init__(tritonclient.grpc, address, headers, ssl=ssl, channel_args=_GRPC_OPTIONS)


class HttpTransport(_TritonTransport):
    """KServe v2 over HTTP, tensors in the binary extension."""

    def __init__(self, address: str, headers: Mapping[str, str], ssl: bool) -> None:
        # Imported here: it loads gevent and aiohttp, which gRPC does without.
        import aiohttp
        import tritonclient.http
        import tritonclient.http.aio

        self._connection_errors = (OSError, aiohttp.ClientError)
        # conn_timeout bounds the whole request (60 s by default), which a generation may well outlast.
        super().__init__(tritonclient.http, address, headers, ssl=ssl, conn_timeout=None)
