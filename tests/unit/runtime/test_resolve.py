"""Where files come from: every kind of reference, and what a hostile one can try. Refusals name the field."""

from __future__ import annotations

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from runtime.files import resolve as resolve_module
from runtime.files.located import Folder, SingleFile
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, InvalidArgument
from tests.unit.runtime.hub import downloaded, publish
from tests.unit.runtime.web import Web, endless, reply

CONTENT = b"\x00picture\xff" * 9
EVERY_KIND = ("image", "weights")


@pytest.fixture
def sources(settings: Settings, store: Store) -> FileResolver:
    return FileResolver(settings, store)


@pytest.fixture
def request_(store: Store) -> ResolveContext:
    """Three files were sent along."""
    return ResolveContext([b"zero", b"one", CONTENT], store.pins(), lambda: None)


@pytest.fixture
def allowed(settings: Settings) -> Path:
    return settings.local_paths[0]


@pytest.fixture
def small(settings: Settings, store: Store) -> FileResolver:
    """FileResolver that take no file larger than CONTENT less one byte."""
    limit = len(CONTENT) - 1
    return FileResolver(settings.model_copy(update={"max_image_bytes": limit, "max_file_bytes": limit}), store)


def _read(sources: FileResolver, kind: str, value: str, request: ResolveContext) -> bytes:
    """The content behind a value, as a picture or as weights."""
    if kind == "image":
        return sources.image("field", value, request)
    stored = sources.weights("field", value, request)
    content = stored.path.read_bytes()
    assert stored.digest == hashlib.sha256(content).hexdigest()
    return content


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_tensor_is_the_file_of_that_number(sources: FileResolver, request_: ResolveContext, kind: str) -> None:
    assert [_read(sources, kind, f"tensor:{i}", request_) for i in range(3)] == [b"zero", b"one", CONTENT]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("index", ["3", "-1", "99999999999999999999", "", "1.0", " 1", "+1", "0x1", "\u00b2", "\u0661"])
def test_a_tensor_that_was_not_sent_is_refused(
    sources: FileResolver, request_: ResolveContext, kind: str, index: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: tensor:.*FILES has 3 files"):
        _read(sources, kind, f"tensor:{index}", request_)


BASE64 = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "value",
    [
        f"data:image/png;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        f"data:image/png;base64,{quote(BASE64, safe='')}",
        f"data:application/octet-stream,{quote(CONTENT)}",
        f"data:image/svg+xml;charset=utf-8;base64,{BASE64}",
    ],
)
def test_a_data_uri_holds_the_file(sources: FileResolver, request_: ResolveContext, kind: str, value: str) -> None:
    assert _read(sources, kind, value, request_) == CONTENT


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64", "must have a comma"),
        ("data:image/png;base64,AAA", "not valid base64"),
        ("data:image/png;base64,AA$A", "not valid base64"),
        ("data:image/png;base64,äöü=", "not valid base64"),
        ("data:image/png;base64,AA==AA", "not valid base64"),
    ],
)
def test_a_damaged_data_uri_is_refused(
    sources: FileResolver, request_: ResolveContext, kind: str, value: str, reason: str
) -> None:
    with pytest.raises(InvalidArgument, match=f"^field: .*{reason}"):
        _read(sources, kind, value, request_)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_url_is_downloaded(sources: FileResolver, request_: ResolveContext, kind: str, web: Web) -> None:
    web.answers["/a"] = reply(CONTENT)
    assert _read(sources, kind, web.url("/a"), request_) == CONTENT


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_url_that_fails_is_named(sources: FileResolver, request_: ResolveContext, kind: str, web: Web) -> None:
    with pytest.raises(InvalidArgument, match=f"^field: {web.url('/missing')}: the server answered 404"):
        _read(sources, kind, web.url("/missing"), request_)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_long_url_is_told_in_short(sources: FileResolver, request_: ResolveContext, kind: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        _read(sources, kind, "ftp://" + "x" * 100_000, request_)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_download_stops_when_the_request_is_cancelled(
    sources: FileResolver, store: Store, kind: str, web: Web, tmp_path: Path
) -> None:
    calls = iter(range(1000))

    def stop() -> None:
        if next(calls) > 20:
            raise Cancelled

    web.answers["/a"] = endless(b"x" * 100, 0.001)
    with pytest.raises(Cancelled):
        _read(sources, kind, web.url("/a"), ResolveContext([], store.pins(), stop))
    assert list((tmp_path / "store" / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, value) for kind in EVERY_KIND for value in ("tensor:2", f"data:;base64,{BASE64}", "URL")),
        ("image", "local.png"),  # a local weight file takes no room in the store
    ],
)
def test_a_file_too_large_is_refused_wherever_it_comes_from(
    sources: FileResolver, small: FileResolver, request_: ResolveContext, web: Web, allowed: Path, kind: str, value: str
) -> None:
    web.answers["/a"] = reply(CONTENT)
    (allowed / "local.png").write_bytes(CONTENT)
    value = web.url("/a") if value == "URL" else value
    with pytest.raises(InvalidArgument, match=f"(larger than|at most) {len(CONTENT) - 1} bytes"):
        _read(small, kind, value, request_)
    assert _read(sources, kind, value, request_) == CONTENT


@pytest.fixture
def secret(tmp_path: Path, allowed: Path) -> Path:
    """A file outside the allowed folder, with a link to it inside."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (allowed / "link").symlink_to(secret)
    (allowed / "out").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    (allowed / "dir").mkdir()
    (allowed / "dir" / "file").write_bytes(CONTENT)
    (allowed / "inner").symlink_to(allowed / "dir")
    return secret


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("value", ["dir/file", "./dir/file", "dir/../dir/file", "inner/file", "ABSOLUTE/dir/file"])
def test_a_file_in_an_allowed_folder_is_read(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path, kind: str, value: str
) -> None:
    assert _read(sources, kind, value.replace("ABSOLUTE", str(allowed)), request_) == CONTENT


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "value",
    [
        "../secret",
        "./../secret",
        "dir/../../secret",
        "SECRET",
        "link",
        "out/secret",
        "loop",
        "loop/file",
        "dir",
        "dir/missing",
        "~/secret",
        "/etc/passwd",
        "/proc/self/environ",
        "file:///etc/passwd",
        "dir/file\0.png",
        "dir/\ud800",  # as no file system spells it, nor Triton's Python anything but ASCII
        "x" * 300,
        "x" * 5000,
        "dir/" + "x" * 300,
        "dir/file/x",
        ".",
        " ",
    ],
)
def test_no_other_file_is_read(
    sources: FileResolver,
    request_: ResolveContext,
    secret: Path,
    kind: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidArgument, match=r"^field: "):
        _read(sources, kind, value.replace("SECRET", str(secret)), request_)


def test_whether_a_file_outside_exists_is_not_told(
    sources: FileResolver, request_: ResolveContext, secret: Path, tmp_path: Path
) -> None:
    def answer(path: Path) -> str:
        with pytest.raises(InvalidArgument) as caught:
            sources.weights("field", str(path), request_)
        return str(caught.value).replace(path.name, "")

    assert answer(secret) == answer(tmp_path / "absent")


def test_without_a_setting_no_local_file_is_read(settings: Settings, store: Store, request_: ResolveContext) -> None:
    sources = FileResolver(settings.model_copy(update={"local_paths": ()}), store)
    with pytest.raises(InvalidArgument, match="LORIKEET_LOCAL_PATHS"):
        sources.image("field", "/etc/hostname", request_)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(min_size=1, max_size=60))
def test_any_text_is_a_file_or_is_refused(
    sources: FileResolver, request_: ResolveContext, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for kind in EVERY_KIND:
        with pytest.raises(InvalidArgument, match=r"^field: "):
            _read(sources, kind, value, request_)
    with pytest.raises(InvalidArgument, match=r"^field: "):
        sources.checkpoint("field", value, request_)


def test_weights_that_were_fetched_are_not_fetched_again(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(CONTENT)
    assert sources.weights("field", web.url("/a"), request_) == sources.weights("field", web.url("/a"), request_)
    assert len(web.seen) == 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use of a URL asks its server whether the file has changed."""
    monkeypatch.setattr(resolve_module, "_REVALIDATE_SECONDS", 0)


@pytest.mark.usefixtures("impatient")
def test_weights_that_have_not_changed_come_from_the_store(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(CONTENT, headers={"ETag": '"1"'})
    first = sources.weights("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=304)
    assert sources.weights("field", web.url("/a"), request_) == first
    assert web.seen[1][1]["If-None-Match"] == '"1"'


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [500, 503])
def test_weights_whose_server_fails_come_from_the_store(
    sources: FileResolver, request_: ResolveContext, web: Web, status: int
) -> None:
    web.answers["/a"] = reply(CONTENT, headers={"ETag": '"1"'})
    first = sources.weights("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=status)
    assert sources.weights("field", web.url("/a"), request_) == first
    web.stop()
    assert sources.weights("field", web.url("/a"), request_) == first


@pytest.mark.usefixtures("impatient")
def test_weights_that_are_gone_are_not_served(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/a"] = reply(CONTENT, headers={"ETag": '"1"'})
    sources.weights("field", web.url("/a"), request_)
    web.answers["/a"] = reply(status=404)
    with pytest.raises(InvalidArgument, match="404"):
        sources.weights("field", web.url("/a"), request_)


@pytest.mark.usefixtures("impatient")
def test_weights_that_have_changed_are_fetched_again(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/a"] = reply(b"old", headers={"ETag": '"1"'})
    assert _read(sources, "weights", web.url("/a"), request_) == b"old"
    web.answers["/a"] = reply(b"new", headers={"ETag": '"2"'})
    assert _read(sources, "weights", web.url("/a"), request_) == b"new"


@pytest.mark.usefixtures("impatient")
def test_no_etag_is_sent_for_weights_that_were_evicted(
    sources: FileResolver, request_: ResolveContext, web: Web, tmp_path: Path
) -> None:
    web.answers["/a"] = reply(CONTENT, headers={"ETag": '"1"'})
    sources.weights("field", web.url("/a"), request_).path.unlink()
    assert _read(sources, "weights", web.url("/a"), request_) == CONTENT
    assert "If-None-Match" not in web.seen[1][1]


def test_fetched_weights_are_pinned(settings: Settings, tmp_path: Path, web: Web) -> None:
    store = Store(tmp_path / "store", budget=0)
    request = ResolveContext([b"sent"], store.pins(), lambda: None)
    sources = FileResolver(settings, store)
    web.answers["/a"] = reply(CONTENT)
    found = [sources.weights("field", value, request).path for value in (web.url("/a"), web.url("/a"), "tensor:0")]
    assert all(path.exists() for path in found)


def test_many_that_wait_for_one_url_share_one_download(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    together = threading.Barrier(8)
    web.answers["/a"] = reply(CONTENT)

    def fetch(_: int) -> bytes:
        together.wait()
        return _read(sources, "weights", web.url("/a"), request_)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(fetch, range(8))) == {CONTENT}
    assert len(web.seen) == 1


def test_one_failed_download_does_not_stand_for_the_next(
    sources: FileResolver, request_: ResolveContext, web: Web
) -> None:
    web.answers["/a"] = reply(status=503)
    with pytest.raises(InvalidArgument, match="503"):
        sources.weights("field", web.url("/a"), request_)
    web.answers["/a"] = reply(CONTENT)
    assert _read(sources, "weights", web.url("/a"), request_) == CONTENT


def test_a_checkpoint_is_a_local_folder(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path
) -> None:
    assert sources.checkpoint("field", "inner", request_) == Folder(allowed / "dir", allowed)
    assert sources.checkpoint("field", str(allowed / "dir"), request_) == Folder(allowed / "dir", allowed)


def test_a_checkpoint_is_a_local_file(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path
) -> None:
    """What lies beside it may be read, and nothing outside of the allowed folder."""
    found = sources.checkpoint("field", "inner/file", request_)
    assert isinstance(found, SingleFile)
    assert (found.stored.path, found.inside) == (allowed / "dir/file", allowed)
    assert found.stored.digest == hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("value", ["tensor:2", f"data:;base64,{BASE64}", "URL"])
@pytest.mark.parametrize("kind", ["checkpoint", "unet"])
def test_a_checkpoint_is_a_file_from_elsewhere(
    sources: FileResolver, request_: ResolveContext, web: Web, kind: str, value: str
) -> None:
    """It lies in the store, where nothing is beside it."""
    web.answers["/a"] = reply(CONTENT)
    found = getattr(sources, kind)("field", web.url("/a") if value == "URL" else value, request_)
    assert isinstance(found, SingleFile)
    assert found.inside is None
    assert found.stored.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "value", ["dir/missing", "out", "link", "../", "https://127.0.0.1:1/a.safetensors", "tensor:3"]
)
def test_nothing_else_is_a_checkpoint(
    sources: FileResolver, request_: ResolveContext, secret: Path, value: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: "):
        sources.checkpoint("field", value, request_)


@pytest.fixture
def hub(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    endpoint = f"http://{web.host}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return web


def test_a_hub_id_is_a_lora(sources: FileResolver, request_: ResolveContext, hub: Web) -> None:
    publish(hub, "owner/name", {"lora.safetensors": CONTENT})
    assert _read(sources, "weights", "owner/name", request_) == CONTENT


def test_a_hub_id_is_a_checkpoint(sources: FileResolver, request_: ResolveContext, hub: Web, tmp_path: Path) -> None:
    publish(hub, "owner/name", {"unet/config.json": b"{}"})
    folder = sources.checkpoint("field", "owner/name", request_)
    assert isinstance(folder, Folder)
    assert (folder.path / "unet/config.json").resolve().is_relative_to(folder.inside)
    assert folder.inside == tmp_path / "hub"


def test_a_hub_id_that_is_unknown_is_named(sources: FileResolver, request_: ResolveContext, hub: Web) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: owner/name: the Hugging Face Hub could not provide it"):
        sources.weights("field", "owner/name", request_)


def test_a_local_file_comes_before_a_hub_id(
    sources: FileResolver, request_: ResolveContext, hub: Web, secret: Path
) -> None:
    publish(hub, "dir/file", {"lora.safetensors": b"other"})
    assert _read(sources, "weights", "dir/file", request_) == CONTENT
    assert downloaded(hub, "dir/file") == set()
