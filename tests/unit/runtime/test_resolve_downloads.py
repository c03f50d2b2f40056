"""Weights by URL: fetched once, compared with the server's later, and mended links."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from runtime.files import downloads
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, InvalidArgument
from tests.unit.runtime.resolving import EVERY_KIND, LOGIN, WEIGHTS, read_source, sha256
from tests.unit.runtime.web import Web, endless, reply


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_download_stops_when_the_request_is_cancelled(
    sources: FileResolver, store: Store, kind: str, web: Web, tmp_path: Path
) -> None:
    calls = iter(range(1000))

    def stop() -> None:
        if next(calls) > 20:
            raise Cancelled

    web.answers["/a"] = endless(b"\0" * 100, 0.001)
    with pytest.raises(Cancelled):
        read_source(sources, kind, web.url("/a"), ResolveContext([], store.pins(), stop))
    assert list((tmp_path / "store" / "blobs").iterdir()) == []


def test_weights_that_were_fetched_are_not_fetched_again(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(WEIGHTS)
    assert sources.lora("field", web.url("/a"), request_) == sources.lora("field", web.url("/a"), request_)
    assert sources.lora("field", web.url("/x/../a#top "), request_).digest == sha256(WEIGHTS)
    assert len(web.seen) == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use of a URL asks its server whether the file has changed."""
    monkeypatch.setattr(downloads, "_REVALIDATE_SECONDS", 0)


@pytest.mark.usefixtures("impatient")
def test_weights_that_have_not_changed_come_from_the_store(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    first = sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=304)
    assert sources.lora("field", web.url("/a"), request_) == first
    assert web.seen[1][1]["If-None-Match"] == '"1"'


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [500, 503])
def test_weights_whose_server_fails_come_from_the_store(
    sources: FileResolver, request_: ResolveContext, web: Web, status: int
) -> None:
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    first = sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=status)
    assert sources.lora("field", web.url("/a"), request_) == first
    web.stop()
    assert sources.lora("field", web.url("/a"), request_) == first


@pytest.mark.usefixtures("impatient")
def test_weights_that_are_gone_are_not_served(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=404)
    with pytest.raises(InvalidArgument, match="404"):
        sources.lora("field", web.url("/a"), request_)


@pytest.mark.usefixtures("impatient")
def test_weights_that_have_changed_are_fetched_again(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    new = save({"b": np.ones(3, np.float32)})
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    assert read_source(sources, "weights", web.url("/a"), request_) == WEIGHTS
    web.answers["/a"] = reply(new, headers={"ETag": '"2"'})
    assert read_source(sources, "weights", web.url("/a"), request_) == new


@pytest.mark.usefixtures("impatient")
def test_no_etag_is_sent_for_weights_that_were_evicted(
    sources: FileResolver, request_: ResolveContext, web: Web, tmp_path: Path
) -> None:
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    sources.lora("field", web.url("/a"), request_).path.unlink()
    assert read_source(sources, "weights", web.url("/a"), request_) == WEIGHTS
    assert "If-None-Match" not in web.seen[1][1]


def test_fetched_weights_are_pinned(settings: Settings, tmp_path: Path, web: Web) -> None:
    store = Store(tmp_path / "store", budget=0)
    request = ResolveContext([save({"sent": np.zeros(1)})], store.pins(), lambda: None)
    sources = FileResolver(settings, store)
    web.answers["/a"] = reply(WEIGHTS)
    found = [sources.lora("field", value, request).path for value in (web.url("/a"), web.url("/a"), "tensor:0")]
    assert all(path.exists() for path in found)


def test_many_that_wait_for_one_url_share_one_download(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    together = threading.Barrier(8)
    web.answers["/a"] = reply(WEIGHTS)

    def fetch(_: int) -> bytes:
        together.wait()
        return read_source(sources, "weights", web.url("/a"), request_)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {WEIGHTS}
    assert len(web.seen) == 1


def test_one_failed_download_does_not_stand_for_the_next(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(status=503)
    with pytest.raises(InvalidArgument, match="503"):
        sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(WEIGHTS)
    assert read_source(sources, "weights", web.url("/a"), request_) == WEIGHTS


def test_a_mended_link_works_at_once(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/a"] = reply(LOGIN, headers={"ETag": '"1"'})
    with pytest.raises(InvalidArgument, match="a web page"):
        sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    assert read_source(sources, "weights", web.url("/a"), request_) == WEIGHTS
    assert "If-None-Match" not in web.seen[1][1]


def test_what_an_older_server_kept_unchecked_is_fetched_again(
    sources: FileResolver, request_: ResolveContext, store: Store, web: Web
) -> None:
    web.answers["/a"] = reply(WEIGHTS)
    junk = store.put([LOGIN], store.pins(), ".safetensors")
    note = {"digest": junk.digest, "etag": '"1"', "checked": str(time.time())}
    for damaged in (note, {"digest": junk.digest}, {}, note | {"digest": "../../x"}):
        store.remember(f"url:{web.url('/a')}", damaged)
        assert read_source(sources, "weights", web.url("/a"), request_) == WEIGHTS
    assert all("If-None-Match" not in headers for _, headers in web.seen)
