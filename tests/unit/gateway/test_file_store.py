"""The store over a local folder, in memory, on S3, and with PostgreSQL: what it holds, what a broken write leaves."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest
import sqlalchemy as sa
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer

from lorikeet.gateway.database import file_parts, files, open_database
from lorikeet.gateway.files import rows
from lorikeet.gateway.files.part_writer import PartWriter, remove_object
from lorikeet.gateway.files.store import FileStore
from lorikeet.gateway.files.stored_file import (
    FileTooLarge,
    Lifecycle,
    StoredFile,
    TooManyAttempts,
    UploadConflict,
    UploadNotFound,
)
from tests.gateway.postgres import Postgres

LIMIT = 64 << 20
KEPT = Lifecycle(3600.0)
CONTENT = os.urandom(9 << 20)  # more than one part of an S3 upload


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that speaks S3, with an empty bucket."""
    with pytest.MonkeyPatch.context() as environment:
        server = ThreadedMotoServer(port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="lorikeet")
        yield "s3://lorikeet/some/prefix"
        server.stop()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Postgres(tmp_path_factory.mktemp("postgres") / "data") as server:
        yield server.url


@pytest.fixture(params=["file", "memory", "s3", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileStore]:
    """Empty, but for what other tests left on S3."""
    url, database = (tmp_path / "files").as_uri(), f"sqlite:///{tmp_path / 'gateway.sqlite'}"
    if request.param == "memory":
        url = "memory://files"
    elif request.param == "s3":
        url = request.getfixturevalue("s3")
    elif request.param == "postgres":
        database = request.getfixturevalue("postgres")
    engine = open_database(database)
    with engine.begin() as connection:
        for table in (file_parts, files):
            connection.execute(sa.delete(table))
    MemoryFileSystem.store.clear()
    yield FileStore(engine, url, "http://gateway")
    engine.dispose()


def objects(store: FileStore) -> set[str]:
    """The names of all objects in the store's folder."""
    store._files.invalidate_cache()
    return {path.rpartition("/")[2] for path in store._files.find(store._root)}


def known(store: FileStore) -> set[str]:
    """The names of the objects that the database knows."""
    with store._engine.connect() as connection:
        return set(connection.scalars(sa.select(file_parts.c.key)))


def names(store: FileStore) -> set[str]:
    with store._engine.connect() as connection:
        return set(connection.scalars(sa.select(files.c.name)))


async def pieces(content: bytes, *, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 65536):
        yield content[at : at + 65536]
    if then is not None:
        raise then


async def whole(store: FileStore, file: StoredFile, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([x async for x in store.read_range(file, start, file.size if end is None else end)])


async def begin(store: FileStore) -> str:
    return await store.begin("key", "image/png", KEPT, "a.png")


async def put(store: FileStore, name: str, number: int, content: bytes) -> str:
    return await store.write_part(name, number, pieces(content), len(content), LIMIT)


async def test_a_file(store: FileStore) -> None:
    file = await store.upload(pieces(CONTENT), LIMIT, "key", "image/png", KEPT, "a.png")
    found = await store.find(file.name)
    assert found == file and found.size == len(CONTENT)
    assert await store.read(found) == await whole(store, found) == CONTENT
    assert await whole(store, found, 1_048_570, 8_500_000) == CONTENT[1_048_570:8_500_000]
    assert known(store) <= objects(store)
    await store.delete(file.name)
    assert await store.find(file.name) is None
    assert not known(store) and not names(store)
    with pytest.raises(FileNotFoundError):
        await store.read(file)


async def test_an_empty_file(store: FileStore) -> None:
    file = await store.save(b"", "key", "image/png", KEPT)
    assert (file.size, await store.read(file), await whole(store, file)) == (0, b"", b"")


async def test_parts(store: FileStore) -> None:
    name = await begin(store)
    contents = [CONTENT[: 5 << 20], CONTENT[5 << 20 : -1], CONTENT[-1:]]
    digests = await asyncio.gather(*(put(store, name, n, x) for n, x in enumerate(contents, 1)))
    assert await store.find(name) is None
    file = await store.complete(name, list(enumerate(digests, 1)))
    assert await store.read(file) == CONTENT
    assert await whole(store, file, (5 << 20) - 3, (5 << 20) + 3) == CONTENT[(5 << 20) - 3 : (5 << 20) + 3]
    await store.delete(name)
    assert not known(store)


async def test_files_of_one_content_have_one_digest(store: FileStore) -> None:
    one, two = [await store.save(x, "key", "image/png", KEPT) for x in (b"x", b"x")]
    other = await store.save(b"y", "key", "image/png", KEPT)
    assert one.digest == two.digest != other.digest
    assert one.name != two.name


@pytest.mark.parametrize("size", [1000, 9 << 20], ids=["small", "large"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["whole", "part"])
async def test_a_broken_upload_leaves_no_object(store: FileStore, size: int, in_parts: bool) -> None:
    before = objects(store)
    name = await begin(store)
    broken = pieces(CONTENT[:size], then=ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        if in_parts:
            await store.write_part(name, 1, broken, LIMIT, LIMIT)
        else:
            await store.upload(broken, LIMIT, "key", "image/png", KEPT)
    assert objects(store) == before
    assert not known(store)
    assert names(store) == {name}
    digest = await put(store, name, 1, b"again")  # the attempt that failed holds nothing of the limit
    assert await store.read(await store.complete(name, [(1, digest)])) == b"again"


async def test_a_content_above_the_limit_leaves_no_object(store: FileStore) -> None:
    before = objects(store)
    with pytest.raises(FileTooLarge):
        await store.upload(pieces(CONTENT), len(CONTENT) - 1, "key", "image/png", KEPT)
    name = await begin(store)
    with pytest.raises(FileTooLarge):
        await store.write_part(name, 1, pieces(CONTENT), len(CONTENT) - 1, LIMIT)
    assert objects(store) == before
    assert not known(store)


async def test_a_cancel_leaves_no_object(store: FileStore) -> None:
    before = objects(store)
    sent = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield CONTENT
        sent.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.upload(stalled(), LIMIT, "key", "image/png", KEPT))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert objects(store) == before
    assert not known(store) and not names(store)


async def test_a_cancel_while_a_block_is_written(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before, begun = objects(store), asyncio.Event()
    loop, write = asyncio.get_running_loop(), PartWriter.write

    def slow(writer: PartWriter, block: bytes) -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.1)
        write(writer, block)

    monkeypatch.setattr(PartWriter, "write", slow)
    task = asyncio.create_task(store.save(CONTENT, "key", "image/png", KEPT))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert objects(store) == before
    assert not known(store) and not names(store)


async def test_expired_files_are_removed(store: FileStore) -> None:
    before = objects(store)
    short = await store.save(b"x", "key", "image/png", Lifecycle(0.05))
    kept = await store.save(b"y", "key", "image/png", KEPT)
    ever = await store.save(b"z", "key", "image/png", Lifecycle(None))
    await asyncio.sleep(0.06)
    assert await store.find(short.name) is None
    assert await store.delete_expired() == 1
    assert names(store) == {kept.name, ever.name}
    assert len(objects(store)) == len(before) + 2


async def test_an_unfinished_upload_is_removed_after_a_day(store: FileStore) -> None:
    before = objects(store)
    name = await begin(store)
    digest = await put(store, name, 1, b"x")
    assert await store.delete_expired() == 0
    later(store, rows.UNFINISHED_SECONDS + 1)
    with pytest.raises(UploadNotFound):
        await put(store, name, 2, b"y")
    with pytest.raises(UploadNotFound):
        await store.complete(name, [(1, digest)])
    assert await store.delete_expired() == 1
    assert objects(store) == before
    assert not known(store) and not names(store)


async def test_an_object_that_cannot_be_removed_keeps_no_other_one(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, keys = await begin(store), ["0" * 32, "1" * 32, "2" * 32]
    with store._engine.begin() as connection:
        for number, key in enumerate(keys, 1):
            rows.FileRows(connection).reserve(name, number, 10, LIMIT, key)
        connection.execute(sa.update(file_parts).values(created_at=time.time() - rows.UNFINISHED_SECONDS - 1))
    expired = await store.save(b"x", "key", "image/png", Lifecycle(0.01))
    await asyncio.sleep(0.02)

    def remove(files: AbstractFileSystem, path: str) -> None:
        if path.endswith(keys[1]):
            raise PermissionError(f"cannot remove {path}")
        remove_object(files, path)

    monkeypatch.setattr("lorikeet.gateway.files.store.remove_object", remove)
    assert await store.delete_expired() == 1
    assert known(store) == {keys[1]} and expired.name not in names(store)


async def test_what_a_killed_gateway_left_is_removed(store: FileStore) -> None:
    """Objects that were being written, for a file whose upload was repeated, and for one that nobody finished."""
    before = objects(store)
    name = await begin(store)
    keys = ["0" * 32, "1" * 32]
    with store._engine.begin() as connection:
        rows.FileRows(connection).reserve(name, 1, 10, LIMIT, keys[0])
    store._files.pipe_file(store._path(keys[0]), b"half")
    digest = await put(store, name, 1, b"x")
    file = await store.complete(name, [(1, digest)])
    with store._engine.begin() as connection:
        rows.FileRows(connection).reserve(name, 1, 10, LIMIT, keys[1])
    store._files.pipe_file(store._path(keys[1]), b"half")
    assert len(objects(store)) == len(before) + 2  # completion removed the first
    await store.delete_expired()
    assert keys[1] in known(store)  # it may still be written
    with store._engine.begin() as connection:
        is_file = file_parts.c.key == keys[1]
        connection.execute(
            sa.update(file_parts).where(is_file).values(created_at=time.time() - rows.UNFINISHED_SECONDS - 1)
        )
    await store.delete_expired()
    assert known(store) == {file.parts[0].key}
    assert len(objects(store)) == len(before) + 1
    assert await store.read(file) == b"x"


async def test_a_part_whose_upload_ended_meanwhile_is_dropped(store: FileStore) -> None:
    before = objects(store)
    name = await begin(store)
    kept = await put(store, name, 1, b"kept")
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"late"
        await go_on.wait()

    task = asyncio.create_task(store.write_part(name, 2, slow(), 4, LIMIT))
    while len(known(store)) < 2:
        await asyncio.sleep(0.001)
    file = await store.complete(name, [(1, kept)])
    go_on.set()
    with pytest.raises(UploadConflict):
        await task
    assert await store.read(file) == b"kept"
    assert len(objects(store)) == len(before) + 1
    assert len(known(store)) == 1


async def test_parts_sent_at_the_same_time_do_not_exceed_the_limit(store: FileStore) -> None:
    name, content = await begin(store), b"x" * 1000

    async def send(number: int) -> bool:
        try:
            await store.write_part(name, number, pieces(content), len(content), 4 * len(content))
        except FileTooLarge:
            return False
        return True

    before = objects(store)
    assert sum(await asyncio.gather(*(send(number) for number in range(1, 17)))) == 4
    assert len(objects(store)) == len(before) + 4


async def test_attempts_at_one_part_are_bounded(store: FileStore) -> None:
    name, go_on = await begin(store), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await go_on.wait()
        yield b"x"

    tasks = [asyncio.create_task(store.write_part(name, 1, slow(), 1, LIMIT)) for _ in range(6)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 2:
        done, _ = await asyncio.wait(tasks, timeout=0.01)
    assert [type(task.exception()) for task in done] == [TooManyAttempts] * 2
    go_on.set()
    digests = await asyncio.gather(*(task for task in tasks if task not in done))
    assert len(set(digests)) == len(known(store)) == 1


async def test_one_file_that_cannot_be_removed_keeps_no_other(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_ = [await store.save(b"x", "key", "image/png", Lifecycle(0.01)) for _ in range(3)]
    stuck, remove = files_[1].parts[0].key, store._files.rm_file

    def fail(path: str) -> None:
        if path.endswith(stuck):
            raise PermissionError(13, "Permission denied")
        remove(path)

    monkeypatch.setattr(store._files, "rm_file", fail)
    await asyncio.sleep(0.02)
    assert await store.delete_expired() == 2
    assert names(store) == {files_[1].name}
    monkeypatch.undo()
    assert await store.delete_expired() == 1


def test_addresses(store: FileStore) -> None:
    assert store.name_of(store.url("a.png")) == store.name_of(store.url("a.png") + "?x") == "a.png"
    assert store.name_of("http://other/cdn/files/a.png") is None


def later(store: FileStore, seconds: float) -> None:
    """Move the ends of all files `seconds` into the past."""
    with store._engine.begin() as connection:
        connection.execute(sa.update(files).values(expires_at=files.c.expires_at - seconds))
