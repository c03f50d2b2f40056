"""The HTTP transport against a scripted KServe server. `test_client_calls.py` tests the shared code over gRPC."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tritonclient.utils import serialize_byte_tensor

from lorikeet import AsyncClient, Cancelled, InvalidRequest, NotFound, Result, Unavailable

BASE = {"model_name": "org/model", "prompt": "p"}
OUTPUT = b'{"images": [], "seed": 7, "has_nsfw_concepts": []}'


def binary_reply(**tensors: list[bytes]) -> web.Response:
    raws = {name: serialize_byte_tensor(np.array(items, dtype=np.object_)).item() for name, items in tensors.items()}
    outputs = [
        {
            "name": n,
            "datatype": "BYTES",
            "shape": [len(tensors[n])],
            "parameters": {"binary_data_size": len(raw)},
        }
        for n, raw in raws.items()
    ]
    head = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return web.Response(body=head + b"".join(raws.values()), headers=headers)


class Server:
    """The ensemble answers with `status` and `error`, or the images. The model `jobs` cancels."""

    def __init__(self, status: int = 200, slow: bool = False, error: str = "field: text") -> None:
        self.status, self.error = status, error
        self.gate = asyncio.Event()
        self.arrived = asyncio.Event()
        self.requests: list[dict[str, Any]] = []
        if not slow:
            self.gate.set()

    async def infer(self, request: web.Request) -> web.Response:
        body = await request.read()
        head = json.loads(body[: int(request.headers["Inference-Header-Content-Length"])])
        if request.match_info["model"] == "jobs":
            self.gate.set()
            return binary_reply(RESPONSE=[b'{"status": "cancelled"}'])
        self.requests.append(head)
        self.arrived.set()
        await self.gate.wait()
        if self.status != 200:
            return web.json_response({"error": self.error}, status=self.status)
        return binary_reply(RESPONSE=[OUTPUT], IMAGES=[b"\x89PNG\0\xff"])

    async def ready(self, request: web.Request) -> web.Response:
        # A stale length header would make Triton misread the next request.
        return web.Response(status=400 if "Inference-Header-Content-Length" in request.headers else 200)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v2/models/{model}/infer", self.infer)
        app.router.add_get("/v2/models/{model}/ready", self.ready)
        return app


async def generate(server: Server, **fields: Any) -> Result:
    async with TestServer(server.app()) as http, AsyncClient(str(http.make_url(""))) as client:
        return await client.image_to_image(BASE, **fields)


def test_one_request() -> None:
    async def main() -> None:
        server = Server()
        result = await generate(server, image=b"file", request_id="mine")
        assert (result.files, result.seed) == ([b"\x89PNG\0\xff"], 7)
        [head] = server.requests
        assert head["id"] == "mine" and len(head["parameters"]["job_token"]) == 32
        assert [tensor["name"] for tensor in head["inputs"]] == ["REQUEST", "FILES"]
        assert all(output["parameters"] == {"binary_data": True} for output in head["outputs"])

    asyncio.run(main())


@pytest.mark.parametrize(("status", "kind"), [(400, InvalidRequest), (404, NotFound), (503, Unavailable)])
def test_errors(status: int, kind: type[Exception]) -> None:
    async def main() -> None:
        with pytest.raises(kind, match=r"^field: text$"):
            await generate(Server(status))

    asyncio.run(main())


def test_headers_do_not_leak_into_the_next_call() -> None:
    async def main() -> None:
        server = Server()
        headers = {"X-Key": "k"}
        async with (
            TestServer(server.app()) as http,
            AsyncClient(str(http.make_url("")), headers=headers) as client,
        ):
            await client.image_to_image(BASE)
            await client.wait_ready(1)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answered", "raised"),
    [("CANCELLED: the request was cancelled", Cancelled), ("steps: at most 100", InvalidRequest)],
)
def test_the_answer_tells_a_cancelled_job_from_a_bad_request(answered: str, raised: type[Exception]) -> None:
    """Triton answers 400 to both. The cancel may come from another client, or too late."""

    async def main() -> None:
        server = Server(status=400, slow=True, error=answered)
        async with TestServer(server.app()) as http, AsyncClient(str(http.make_url(""))) as client:
            job = await client.submit(BASE)
            await server.arrived.wait()
            await client.cancel(job.request_id, job.job_token)
            with pytest.raises(raised, match=answered.removeprefix("CANCELLED: ")):
                await job.result(timeout=5)

    asyncio.run(main())
