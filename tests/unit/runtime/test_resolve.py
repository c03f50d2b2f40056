"""Where files come from: files of the request, data URIs and URLs. Refusals name the field."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pytest
from huggingface_hub import constants
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from runtime.files.data_uri import parse_data_uri
from runtime.files.located import Folder
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings
from runtime.stage_errors import InvalidArgument, Unavailable
from tests.unit.runtime.faults import fill_disk
from tests.unit.runtime.resolving import BASE64, CONTENT, EVERY_KIND, PICTURE, WEIGHTS, read_source
from tests.unit.runtime.web import Web, reply


@pytest.fixture
def small(settings: Settings, store: Store) -> FileResolver:
    """FileResolver that takes no file as large as PICTURE and WEIGHTS."""
    limits = {"max_image_bytes": len(PICTURE) - 1, "max_file_bytes": len(WEIGHTS) - 1}
    return FileResolver(settings.model_copy(update=limits), store)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_tensor_is_the_file_of_that_number(sources: FileResolver, request_: ResolveContext, kind: str) -> None:
    number = list(request_.files).index(CONTENT[kind])
    assert read_source(sources, kind, f"tensor:{number}", request_) == CONTENT[kind]
    assert read_source(sources, kind, f" tensor:{number}\n", request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("index", ["3", "-1", "9" * 20, "", "1.0", " 1", "+1", "0x1", "\u00b2", "\u0661"])
def test_a_tensor_that_was_not_sent_is_refused(
    sources: FileResolver, request_: ResolveContext, kind: str, index: str
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: tensor:.*FILES has 3 files"):
        read_source(sources, kind, f"tensor:{index}", request_)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:;base64,", " DATA:image/png;charset=utf-8;BASE64, "])
def test_a_data_uri_holds_the_file(sources: FileResolver, request_: ResolveContext, kind: str, head: str) -> None:
    """test_data_uri.py has the forms of the data."""
    assert read_source(sources, kind, head + BASE64[kind], request_) == CONTENT[kind]
    assert read_source(sources, kind, f"data:,{quote(CONTENT[kind])}", request_) == CONTENT[kind]


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
    assert read_source(sources, "image", value, request_) == base64.b64decode(text)


def test_of_two_readings_white_space_is_taken_where_a_plus_makes_no_picture(
    sources: FileResolver, request_: ResolveContext
) -> None:
    text = next(text for text in (_png(np.full((64, 64), grey, np.uint8)) for grey in range(100)) if "+" not in text)
    value = f"data:image/png;base64,{text[:7]} {text[7:20]} {text[20:60]} {text[60:66]} {text[66:]}"
    assert parse_data_uri(value).readings() == (True, False)
    assert read_source(sources, "image", value, request_) == base64.b64decode(text)


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
        read_source(sources, kind, value, request_)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_url_is_downloaded(sources: FileResolver, request_: ResolveContext, kind: str, web: Web) -> None:
    web.answers["/a"] = reply(CONTENT[kind])
    assert read_source(sources, kind, web.url("/a"), request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("name", ["my file.png", "青禅_ZEN.safetensors", "pe%C3%B1oles.png", "a.png \n"])
def test_a_url_may_be_written_in_any_alphabet(
    sources: FileResolver, request_: ResolveContext, kind: str, name: str, web: Web
) -> None:
    web.answers[quote(f"/{name.strip()}", safe="/%")] = reply(CONTENT[kind])
    assert read_source(sources, kind, web.url(f"/{name}"), request_) == CONTENT[kind]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_url_that_fails_is_named(sources: FileResolver, request_: ResolveContext, kind: str, web: Web) -> None:
    with pytest.raises(InvalidArgument, match=f"^field: {web.url('/missing')}: the server answered 404"):
        read_source(sources, kind, web.url("/missing"), request_)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_long_url_is_told_in_short(sources: FileResolver, request_: ResolveContext, kind: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_source(sources, kind, "ftp://" + "x" * 100_000, request_)
    assert len(str(caught.value)) < 400


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
        read_source(small, kind, value, request_)
    assert read_source(sources, kind, value, request_) == CONTENT[kind]


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(min_size=1, max_size=60))
def test_any_text_is_a_file_or_is_refused(
    sources: FileResolver, request_: ResolveContext, allowed: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for kind in EVERY_KIND:
        with pytest.raises(InvalidArgument, match=r"^field: "):
            read_source(sources, kind, value, request_)
    try:
        found = sources.checkpoint("field", value, request_)
    except InvalidArgument as error:
        assert str(error).startswith("field: ")
    else:
        assert found == Folder(allowed, allowed), "`.` names the folder itself"


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("start", ["iVBORw0KGgo", "/9j/4AAQSkZJ", "QUJD", "image/png;base64,QUJD", "+/+/"])
@pytest.mark.parametrize("length", [400, 9000])
def test_bare_base64_is_told_how_to_be_a_data_uri(
    sources: FileResolver, request_: ResolveContext, kind: str, start: str, length: int
) -> None:
    with pytest.raises(InvalidArgument, match=r"^field: it (looks like base64|lacks).*write it as data:.*;base64,"):
        read_source(sources, kind, start + "A" * length, request_)


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
