"""Files of the gateway that a request names reach Triton as FILES."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lorikeet.gateway.database import open_database
from lorikeet.gateway.execution import own_files
from lorikeet.gateway.execution.outcome import Outcome
from lorikeet.gateway.execution.run import Run, Runner
from lorikeet.gateway.execution.servers import ServerPool
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.files.stored_file import Lifecycle
from lorikeet.schema import ImageToImageInput
from tests.unit.client.fake_triton import FakeTriton

KEPT = Lifecycle(3600.0)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    engine = open_database(f"sqlite:///{tmp_path / 'gateway.sqlite'}")
    return FileStore(engine, (tmp_path / "files").as_uri(), "http://gateway")


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    server = FakeTriton(images=[b"result"])
    server.output = {
        "images": [{"url": "", "content_type": "image/png", "width": 8, "height": 8}],
        "seed": 7,
        "has_nsfw_concepts": [False],
    }
    yield server
    server.stop()


@pytest.fixture
async def pool(triton: FakeTriton) -> AsyncIterator[ServerPool]:
    pool = ServerPool([triton.url], 1)
    yield pool
    await pool.close()


async def run(pool: ServerPool, store: FileStore, key_id: str = "owner", **fields: object) -> Outcome:
    request = ImageToImageInput.model_validate({"model_name": "m", "prompt": "p", **fields})
    return await Runner(pool, store).run(Run(request, key_id, KEPT, 1, 2, on_log=lambda _: None))


async def url(store: FileStore, content: bytes, lifecycle: Lifecycle = KEPT) -> str:
    return store.url((await store.save(content, "owner", "image/png", lifecycle, "a.png")).name)


async def test_own_addresses_become_tensors(pool: ServerPool, store: FileStore, triton: FakeTriton) -> None:
    image, control = await url(store, b"image"), await url(store, b"control")
    other = "https://example.com/cdn/files/x.png"
    outcome = await run(
        pool,
        store,
        image_url=image,
        loras=[{"path": other}, {"path": control}],
        controlnets=[{"path": "org/c", "image_url": control, "mask_url": image}],
    )
    assert outcome.status_code == 200, outcome.body
    [received] = triton.received
    assert received.inputs["FILES"] == [b"image", b"control"]
    assert received.request["image_url"] == received.request["controlnets"][0]["mask_url"] == "tensor:0"
    assert received.request["controlnets"][0]["image_url"] == "tensor:1"
    assert [lora["path"] for lora in received.request["loras"]] == [other, "tensor:1"]
    assert "http://gateway" not in json.dumps(received.request)
    [result] = outcome.body["images"]
    stored = await store.find(str(store.name_of(result["url"])))
    assert stored is not None and await store.read(stored) == b"result"


async def test_a_file_in_parts(pool: ServerPool, store: FileStore, triton: FakeTriton) -> None:
    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        yield content

    name = await store.begin("owner", "image/png", KEPT)
    digests = [await store.write_part(name, n, chunks(b"part%d" % n), 5, 100) for n in (1, 2)]
    await store.complete(name, list(enumerate(digests, 1)))
    assert (await run(pool, store, image_url=store.url(name))).status_code == 200
    assert triton.received[0].inputs["FILES"] == [b"part1part2"]


@pytest.mark.parametrize("case", ["expired", "foreign", "unknown", "unfinished"])
async def test_a_file_that_may_not_be_read(pool: ServerPool, store: FileStore, triton: FakeTriton, case: str) -> None:
    lifetimes = {"expired": Lifecycle(0.0), "foreign": Lifecycle(3600.0, is_private=True)}
    if case in lifetimes:
        address = await url(store, b"x", lifetimes[case])
    else:
        address = store.url("A" * 22 if case == "unknown" else await store.begin("owner", "image/png", KEPT))
    controlnets = [{"path": "org/c", "image_url": address}]
    outcome = await run(pool, store, key_id="stranger", image_url="https://example.com/a.png", controlnets=controlnets)
    assert outcome.status_code == 422
    [error] = outcome.body["detail"]
    assert error["loc"] == ["body", "controlnets", 0, "image_url"]
    assert error["msg"] == "the gateway has no such file: it may have expired; upload it again"
    assert triton.received == []


async def test_the_owner_may_use_a_private_file(pool: ServerPool, store: FileStore, triton: FakeTriton) -> None:
    address = await url(store, b"x", Lifecycle(3600.0, is_private=True))
    assert (await run(pool, store, key_id="owner", image_url=address)).status_code == 200
    assert triton.received[0].inputs["FILES"] == [b"x"]


async def test_a_file_that_goes_while_the_request_waits(
    pool: ServerPool, store: FileStore, triton: FakeTriton, tmp_path: Path
) -> None:
    address = await url(store, b"x")
    for path in (tmp_path / "files").iterdir():
        path.unlink()
    outcome = await run(pool, store, image_url=address)
    assert (outcome.status_code, outcome.body["detail"][0]["loc"]) == (422, ["body", "image_url"])
    assert triton.received == []


async def test_the_files_of_a_request_fit_into_a_message_of_triton(
    pool: ServerPool, store: FileStore, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_files, "MAX_FILES_BYTES", 10)
    one, two = await url(store, b"12345"), await url(store, b"67890")
    three = await url(store, b"x")
    loras = [{"path": two}, {"path": one}]
    assert (await run(pool, store, image_url=one, loras=loras)).status_code == 200
    outcome = await run(pool, store, image_url=one, loras=[*loras, {"path": three}])
    [error] = outcome.body["detail"]
    assert (outcome.status_code, error["loc"]) == (422, ["body", "loras", 2, "path"])
    assert error["msg"] == "the uploaded files of this request exceed 10 bytes; use fewer or smaller ones"
    assert len(triton.received) == 1
