"""Where files come from: every kind of reference, and what a hostile one can try. Refusals name the field."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from runtime.files import downloads
from runtime.files.data_uri import parse_data_uri
from runtime.files.located import Folder, SingleFile
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings
from runtime.stage_errors import Cancelled, InvalidArgument, Unavailable
from tests.unit.runtime.faults import fill_disk, raising
from tests.unit.runtime.hub import downloaded, publish
from tests.unit.runtime.web import Web, endless, redirect, reply

PICTURE = b"\x00picture\xff" * 9  # its decoder sees more
WEIGHTS = save({"a": np.zeros(3, np.float32)})
CONTENT = {"image": PICTURE, "weights": WEIGHTS}
EVERY_KIND = tuple(CONTENT)


@pytest.fixture
def sources(settings: Settings, store: Store) -> FileResolver:
    return FileResolver(settings, store)


@pytest.fixture
def request_(store: Store) -> ResolveContext:
    """Three files were sent along."""
    return ResolveContext([b"\0zero", PICTURE, WEIGHTS], store.pins(), lambda: None)


@pytest.fixture
def allowed(settings: Settings) -> Path:
    return settings.local_paths[0]


@pytest.fixture
def small(settings: Settings, store: Store) -> FileResolver:
    """FileResolver that takes no file as large as PICTURE and WEIGHTS."""
    limits = {"max_image_bytes": len(PICTURE) - 1, "max_file_bytes": len(WEIGHTS) - 1}
    return FileResolver(settings.model_copy(update=limits), store)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(sources: FileResolver, kind: str, value: str, request: ResolveContext) -> bytes:
    """The content behind a value, as a picture or as weights."""
    if kind == "image":
        return sources.image("field", value, request)
    stored = sources.lora("field", value, request)
    content = stored.path.read_bytes()
    assert stored.digest == sha256(content)
    return content


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_tensor_is_the_file_of_that_number(sources: FileResolver, request_: ResolveContext, kind: str) -> None:
    number = list(request_.files).index(CONTENT[kind])
    assert _read(sources, kind, f"tensor:{number}", request_) == CONTENT[kind]
    assert _read(sources, kind, f" tensor:{number}\n", request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("index", ["3", "-1", "9" * 20, "", "1.0", " 1", "+1", "0x1", "\u00b2", "\u0661"])
def test_a_tensor_that_was_not_sent_is_refused(
    sources: FileResolver, request_: ResolveContext, kind: str, index: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: tensor:.*FILES has 3 files"):
        _read(sources, kind, f"tensor:{index}", request_)


BASE64 = {kind: base64.b64encode(content).decode() for kind, content in CONTENT.items()}


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:;base64,", " DATA:image/png;charset=utf-8;BASE64, "])
def test_a_data_uri_holds_the_file(sources: FileResolver, request_: ResolveContext, kind: str, head: str) -> None:
    """test_data_uri.py has the forms of the data."""
    assert _read(sources, kind, head + BASE64[kind], request_) == CONTENT[kind]
    assert _read(sources, kind, f"data:,{quote(CONTENT[kind])}", request_) == CONTENT[kind]


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    """The PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_of_two_readings_the_one_that_is_a_picture_is_taken(sources: FileResolver, request_: ResolveContext) -> None:
    """A multiple of four spaces may be white space, or "+"."""
    noise = (_png(np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)) for seed in range(100))
    text = next(text for text in noise if text.count("+") % 4 == 0)
    value = "data:image/png;base64," + text.replace("+", " ")
    assert len(parse_data_uri(value).readings()) == 2
    assert _read(sources, "image", value, request_) == base64.b64decode(text)


def test_of_two_readings_white_space_is_taken_where_a_plus_makes_no_picture(
    sources: FileResolver, request_: ResolveContext
) -> None:
    text = next(text for text in (_png(np.full((64, 64), grey, np.uint8)) for grey in range(100)) if "+" not in text)
    value = f"data:image/png;base64,{text[:7]} {text[7:20]} {text[20:60]} {text[60:66]} {text[66:]}"
    assert parse_data_uri(value).readings() == (True, False)
    assert _read(sources, "image", value, request_) == base64.b64decode(text)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64", "must have a comma"),
        ("data:image/png;base64,AAAAA", "not valid base64"),
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
    web.answers["/a"] = reply(CONTENT[kind])
    assert _read(sources, kind, web.url("/a"), request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", ["my file.png", "青禅_ZEN.safetensors", "pe%C3%B1oles.png", "a.png \n"])
def test_a_url_may_be_written_in_any_alphabet(
    sources: FileResolver, request_: ResolveContext, kind: str, name: str, web: Web
) -> None:
    web.answers[quote(f"/{name.strip()}", safe="/%")] = reply(CONTENT[kind])
    assert _read(sources, kind, web.url(f"/{name}"), request_) == CONTENT[kind]


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

    web.answers["/a"] = endless(b"\0" * 100, 0.001)
    with pytest.raises(Cancelled):
        _read(sources, kind, web.url("/a"), ResolveContext([], store.pins(), stop))
    assert list((tmp_path / "store" / "blobs").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((kind, value) for kind in EVERY_KIND for value in ("tensor", "data URI", "URL")),
        ("image", "local.png"),  # a local weight file takes no room in the store
    ],
)
def test_a_file_too_large_is_refused_wherever_it_comes_from(
    sources: FileResolver, small: FileResolver, request_: ResolveContext, web: Web, allowed: Path, kind: str, value: str
) -> None:
    web.answers["/a"] = reply(CONTENT[kind])
    (allowed / "local.png").write_bytes(CONTENT[kind])
    forms = {
        "URL": web.url("/a"),
        "tensor": f"tensor:{list(request_.files).index(CONTENT[kind])}",
        "data URI": f"data:;base64,{BASE64[kind]}",
    }
    value = forms.get(value, value)
    with pytest.raises(InvalidArgument, match=f"(larger than|at most) {len(CONTENT[kind]) - 1} bytes"):
        _read(small, kind, value, request_)
    assert _read(sources, kind, value, request_) == CONTENT[kind]


@pytest.fixture
def secret(tmp_path: Path, allowed: Path) -> Path:
    """A file outside the allowed folder, with a link to it inside."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (allowed / "link").symlink_to(secret)
    (allowed / "out").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    (allowed / "dir").mkdir()
    (allowed / "dir" / "file").write_bytes(WEIGHTS)
    (allowed / "dir" / "picture").write_bytes(PICTURE)
    (allowed / "inner").symlink_to(allowed / "dir")
    return secret


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "value", ["dir/FILE", "./dir/FILE", "dir/../dir/FILE", "inner/FILE", "TOP/dir/FILE", " dir/FILE\n"]
)
def test_a_file_in_an_allowed_folder_is_read(
    sources: FileResolver, request_: ResolveContext, secret: Path, allowed: Path, kind: str, value: str
) -> None:
    value = value.replace("TOP", str(allowed)).replace("FILE", {"image": "picture", "weights": "file"}[kind])
    assert _read(sources, kind, value, request_) == CONTENT[kind]


NAMES = [
    "青禅_ZEN",
    "my lora (v1.0) [x]",
    "peñoles",
    "картинка",
    "🦜",
    "a%20b",
    "#1 100%",
    " lead",
    "trail ",
    "pe\u0301",
]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", NAMES)
def test_a_local_name_may_be_in_any_alphabet(
    sources: FileResolver, request_: ResolveContext, allowed: Path, kind: str, name: str
) -> None:
    (allowed / name).write_bytes(CONTENT[kind])
    spellings = [name]
    if name == name.strip():  # as a Mac spells it, and as others do
        spellings += [f"{unicodedata.normalize(form, name)}\n" for form in ("NFC", "NFD")]
    for spelling in spellings:
        assert _read(sources, kind, spelling, request_) == CONTENT[kind]


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
            sources.lora("field", str(path), request_)
        return str(caught.value).replace(path.name, "")

    assert answer(secret) == answer(tmp_path / "absent")


def test_without_a_setting_no_local_file_is_read(settings: Settings, store: Store, request_: ResolveContext) -> None:
    sources = FileResolver(settings.model_copy(update={"local_paths": ()}), store)
    with pytest.raises(InvalidArgument, match="LORIKEET_LOCAL_PATHS"):
        sources.image("field", "/etc/hostname", request_)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(min_size=1, max_size=60))
def test_any_text_is_a_file_or_is_refused(
    sources: FileResolver, request_: ResolveContext, allowed: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for kind in EVERY_KIND:
        with pytest.raises(InvalidArgument, match=r"^field: "):
            _read(sources, kind, value, request_)
    try:
        found = sources.checkpoint("field", value, request_)
    except InvalidArgument as error:
        assert str(error).startswith("field: ")
    else:
        assert found == Folder(allowed, allowed), "`.` names the folder itself"


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
    assert _read(sources, "weights", web.url("/a"), request_) == WEIGHTS
    web.answers["/a"] = reply(new, headers={"ETag": '"2"'})
    assert _read(sources, "weights", web.url("/a"), request_) == new


@pytest.mark.usefixtures("impatient")
def test_no_etag_is_sent_for_weights_that_were_evicted(
    sources: FileResolver, request_: ResolveContext, web: Web, tmp_path: Path
) -> None:
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    sources.lora("field", web.url("/a"), request_).path.unlink()
    assert _read(sources, "weights", web.url("/a"), request_) == WEIGHTS
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
        return _read(sources, "weights", web.url("/a"), request_)

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
    assert _read(sources, "weights", web.url("/a"), request_) == WEIGHTS


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
    assert found.stored.digest == sha256(WEIGHTS)


@pytest.mark.parametrize("value", ["tensor:2", f"data:;base64,{BASE64['weights']}", "URL"])
@pytest.mark.parametrize("kind", ["checkpoint", "unet"])
def test_a_checkpoint_is_a_file_from_elsewhere(
    sources: FileResolver, request_: ResolveContext, web: Web, kind: str, value: str
) -> None:
    """It lies in the store, where nothing is beside it."""
    web.answers["/a"] = reply(WEIGHTS)
    found = getattr(sources, kind)("field", web.url("/a") if value == "URL" else value, request_)
    assert isinstance(found, SingleFile)
    assert found.inside is None
    assert found.stored.path.read_bytes() == WEIGHTS


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
    publish(hub, "owner/name", {"lora.safetensors": WEIGHTS})
    assert _read(sources, "weights", "owner/name", request_) == WEIGHTS
    assert _read(sources, "weights", " owner/name\n", request_) == WEIGHTS


@pytest.mark.parametrize("name", ["青禅_ZEN.safetensors", "peñoles v1.safetensors"])
def test_a_lora_on_the_hub_may_have_a_name_of_any_alphabet(
    sources: FileResolver, request_: ResolveContext, hub: Web, name: str
) -> None:
    publish(hub, "owner/name", {name: WEIGHTS})
    hub.answers[f"/owner/name/resolve/main/{quote(name)}"] = reply(WEIGHTS)
    for _ in range(2):
        assert _read(sources, "weights", "owner/name", request_) == WEIGHTS
    assert len([path for path, _ in hub.seen if "/resolve/" in path]) == 1


def test_a_hub_id_is_a_checkpoint(sources: FileResolver, request_: ResolveContext, hub: Web, tmp_path: Path) -> None:
    publish(hub, "owner/name", {"unet/config.json": b"{}"})
    folder = sources.checkpoint("field", "owner/name", request_)
    assert isinstance(folder, Folder)
    assert (folder.path / "unet/config.json").resolve().is_relative_to(folder.inside)
    assert folder.inside == tmp_path / "hub"


def test_a_hub_id_that_is_unknown_is_named(sources: FileResolver, request_: ResolveContext, hub: Web) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: owner/name: the Hugging Face Hub could not provide it"):
        sources.lora("field", "owner/name", request_)


def test_a_local_file_comes_before_a_hub_id(
    sources: FileResolver, request_: ResolveContext, hub: Web, secret: Path
) -> None:
    publish(hub, "dir/file", {"lora.safetensors": b"other"})
    assert _read(sources, "weights", "dir/file", request_) == WEIGHTS
    assert downloaded(hub, "dir/file") == set()


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("start", ["iVBORw0KGgo", "/9j/4AAQSkZJ", "QUJD", "image/png;base64,QUJD", "+/+/"])
@pytest.mark.parametrize("length", [400, 9000])
def test_bare_base64_is_told_how_to_be_a_data_uri(
    sources: FileResolver, request_: ResolveContext, kind: str, start: str, length: int
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: it (looks like base64|lacks).*write it as data:.*;base64,"):
        _read(sources, kind, start + "A" * length, request_)


LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 3438167540\n"
NO_FILE = {
    "a web page": (LOGIN, "it is a web page (sign in?)"),
    "a git-LFS pointer": (POINTER, "it is a git-LFS pointer: run `git lfs pull`"),
    "JSON": (b'{"error": "Unauthorized"}', "it is a JSON document"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is an XML document"),
    "a text": (b"Invalid username or password.", "it is a text"),
    "nothing": (b"", "it is empty"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), "it is gzip-compressed"),
    "GGUF": (b"GGUF" + bytes(40), "it is a GGUF file"),
}


@pytest.mark.parametrize("name", NO_FILE)
@pytest.mark.parametrize("kind", [*EVERY_KIND, "checkpoint", "unet"])
@pytest.mark.parametrize("way", ["tensor", "data URI", "URL"])
def test_what_is_no_file_of_its_field_is_named_and_not_kept(
    sources: FileResolver, store: Store, web: Web, tmp_path: Path, way: str, kind: str, name: str
) -> None:
    content, what = NO_FILE[name]
    web.answers["/a"] = reply(content)
    request = ResolveContext([content], store.pins(), lambda: None)
    value = {"tensor": "tensor:0", "data URI": f"data:,{quote(content)}", "URL": web.url("/a")}[way]
    with pytest.raises(InvalidArgument) as caught:
        if kind in EVERY_KIND:
            _read(sources, kind, value, request)
        else:
            getattr(sources, kind)("field", value, request)
    assert str(caught.value).startswith("field: ") and what in str(caught.value)
    assert list((tmp_path / "store" / "blobs").iterdir()) == []
    assert list((tmp_path / "store" / "index").iterdir()) == []


@pytest.mark.parametrize("name", NO_FILE)
def test_a_local_picture_that_is_none_is_named(
    sources: FileResolver, request_: ResolveContext, allowed: Path, name: str
) -> None:
    content, what = NO_FILE[name]
    (allowed / "a.png").write_bytes(content)
    with pytest.raises(InvalidArgument) as caught:
        sources.image("field", "a.png", request_)
    assert str(caught.value).startswith(f"field: not a picture: {what}")
    assert "Unauthorized" not in str(caught.value)  # no line of a local file is repeated


def test_a_mended_link_works_at_once(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/a"] = reply(LOGIN, headers={"ETag": '"1"'})
    with pytest.raises(InvalidArgument, match="a web page"):
        sources.lora("field", web.url("/a"), request_)
    web.answers["/a"] = reply(WEIGHTS, headers={"ETag": '"1"'})
    assert _read(sources, "weights", web.url("/a"), request_) == WEIGHTS
    assert "If-None-Match" not in web.seen[1][1]


def test_what_an_older_server_kept_unchecked_is_fetched_again(
    sources: FileResolver, request_: ResolveContext, store: Store, web: Web
) -> None:
    web.answers["/a"] = reply(WEIGHTS)
    junk = store.put([LOGIN], store.pins(), ".safetensors")
    note = {"digest": junk.digest, "etag": '"1"', "checked": str(time.time())}
    for damaged in (note, {"digest": junk.digest}, {}, note | {"digest": "../../x"}):
        store.remember(f"url:{web.url('/a')}", damaged)
        assert _read(sources, "weights", web.url("/a"), request_) == WEIGHTS
    assert all("If-None-Match" not in headers for _, headers in web.seen)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_redirect_to_a_login_page_is_named(
    sources: FileResolver, request_: ResolveContext, kind: str, web: Web
) -> None:
    web.answers |= {"/a": redirect("/login?returnUrl=/a"), "/login": reply(LOGIN)}
    with pytest.raises(InvalidArgument) as caught:
        _read(sources, kind, web.url("/a"), request_)
    where = f"after a redirect to {web.url('/login')}"
    assert str(caught.value).endswith(f'it is a web page (sign in?): "Sign in" {where}')


@pytest.mark.parametrize(
    ("kind", "said"), [("image", "send the picture with the request"), ("weights", "see LORIKEET_TOKENS")]
)
def test_a_host_that_wants_a_token_is_explained(
    sources: FileResolver, request_: ResolveContext, kind: str, said: str, web: Web
) -> None:
    web.answers["/a"] = reply(b'{"message": "log in"}', 401)
    with pytest.raises(InvalidArgument, match=r"the server answered 401: .*LORIKEET_TOKENS.*\(log in\)$") as caught:
        _read(sources, kind, web.url("/a"), request_)
    assert said in str(caught.value)


def test_a_blob_page_says_resolve(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/owner/name/blob/main/x.safetensors"] = reply(LOGIN)
    with pytest.raises(InvalidArgument, match=r"a web page .*a /blob/ page: use /resolve/ in place of /blob/"):
        sources.lora("field", web.url("/owner/name/blob/main/x.safetensors"), request_)


def test_a_checkpoint_that_is_a_pickle_is_not_kept(
    sources: FileResolver, store: Store, web: Web, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    web.answers["/a"] = reply(buffer.getvalue())
    request = ResolveContext([buffer.getvalue()], store.pins(), lambda: None)
    for value in (web.url("/a"), "tensor:0"):
        with pytest.raises(InvalidArgument, match="it is a pickle"):
            sources.checkpoint("field", value, request)
        assert list((tmp_path / "store" / "blobs").iterdir()) == []
    assert sources.lora("field", web.url("/a"), request).digest == sha256(buffer.getvalue())
    with pytest.raises(InvalidArgument, match="it is a pickle"):
        sources.checkpoint("field", web.url("/a"), request)


def test_a_store_without_space_is_unavailable(
    sources: FileResolver, request_: ResolveContext, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request whose files are local, or kept already, needs no space."""
    (allowed / "local").write_bytes(save({"local": np.zeros(3)}))
    sources.lora("field", "tensor:2", request_)
    fill_disk(monkeypatch)
    assert sources.lora("field", "local", request_).digest
    with pytest.raises(Unavailable, match=r"^field: the disk of the server's store \(LORIKEET_STORE\) is full"):
        sources.lora("field", f"data:,{quote(save({'new': np.zeros(3)}))}", request_)


def test_a_local_file_that_may_not_be_read_is_named(
    sources: FileResolver, request_: ResolveContext, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (allowed / "a").write_bytes(WEIGHTS)
    monkeypatch.setattr(Path, "open", raising(PermissionError(errno.EACCES, "Permission denied")))
    for kind in EVERY_KIND:
        with pytest.raises(InvalidArgument, match=r"^field: a cannot be read \(Permission denied\)"):
            _read(sources, kind, "a", request_)
