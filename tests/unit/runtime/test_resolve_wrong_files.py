"""Files that are not what their field needs: the message names what they are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.resolving import EVERY_KIND, LOGIN, read_source
from tests.unit.runtime.web import Web, redirect, reply

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
            read_source(sources, kind, value, request)
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


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_redirect_to_a_login_page_is_named(
    sources: FileResolver, request_: ResolveContext, kind: str, web: Web
) -> None:
    web.answers |= {"/a": redirect("/login?returnUrl=/a"), "/login": reply(LOGIN)}
    with pytest.raises(InvalidArgument) as caught:
        read_source(sources, kind, web.url("/a"), request_)
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
        read_source(sources, kind, web.url("/a"), request_)
    assert said in str(caught.value)


def test_a_blob_page_says_resolve(sources: FileResolver, request_: ResolveContext, web: Web) -> None:
    web.answers["/owner/name/blob/main/x.safetensors"] = reply(LOGIN)
    with pytest.raises(InvalidArgument, match=r"a web page .*a /blob/ page: use /resolve/ in place of /blob/"):
        sources.lora("field", web.url("/owner/name/blob/main/x.safetensors"), request_)
