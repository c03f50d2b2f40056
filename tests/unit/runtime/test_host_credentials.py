"""Host tokens: each is sent only to its own host, over https."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save

from lorikeet.net import fetch as fetch_module
from lorikeet.net.fetch import Fetcher
from lorikeet.net.host_credentials import read_host_credentials
from lorikeet.net.transfer import FetchError, Limits
from lorikeet.net.url import Url, parse_url
from runtime.files.hub import Hub, HubError
from runtime.files.resolve import FileResolver, ResolveContext
from runtime.files.store import Store
from runtime.settings import Settings, SettingsError, load_settings
from runtime.stage_errors import InvalidArgument
from tests.unit.runtime.hub import publish
from tests.unit.runtime.web import Answer, Web, reply

SECRET = "hf_very-secret"
TOKENS = {"a.example": SECRET, "b.example": "other", "a.example:8443": "port"}
LIMITS = Limits(1000, 5)
CONTENT = save({"a": np.zeros(3, np.float32)})


class _Net:
    """A network of redirects. `sent`: URL -> the Authorization header that it received."""

    def __init__(self, redirects: dict[str, str]) -> None:
        self._redirects, self.sent = redirects, dict[str, str | None]()

    def open(self, _pool: Any, url: Url, headers: list[tuple[bytes, bytes]]) -> Any:
        given = dict(headers).get(b"Authorization")
        self.sent[str(url)] = given.decode() if given else None
        target = self._redirects.get(str(url))
        answer = [(b"Location", target.encode())] if target else []
        return SimpleNamespace(
            status=302 if target else 200, headers=answer, close=lambda: None, iter_stream=lambda: iter([CONTENT])
        )


def _sent(monkeypatch: pytest.MonkeyPatch, *urls: str) -> list[str | None]:
    """The Authorization header that each URL of a redirect chain received."""
    net = _Net(dict(pairwise(urls)))
    monkeypatch.setattr(fetch_module, "_open", net.open)
    response = Fetcher(["a.example", "a.example:80"], TOKENS).fetch(urls[0], LIMITS)
    assert response is not None and b"".join(response.chunks) == CONTENT
    return [net.sent[str(parse_url(url))] for url in urls]


def test_weights_are_fetched_with_a_token_and_pictures_without(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    """The server returns pictures, so a host token would give clients its owner's access."""
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(TOKENS))
    tokens.chmod(0o600)
    net = _Net({})
    monkeypatch.setattr(fetch_module, "_open", net.open)
    store = Store(settings.store, 1 << 30)
    sources = FileResolver(settings.model_copy(update={"tokens": tokens, "fetch_allow": ("a.example",)}), store)
    request = ResolveContext([], store.pins(), lambda: None)
    with pytest.raises(InvalidArgument, match=r"a \.safetensors file"):
        sources.image("image_url", "https://a.example/picture", request)
    sources.lora("loras[0].path", "https://a.example/weights", request)
    assert net.sent == {"https://a.example/picture": None, "https://a.example/weights": f"Bearer {SECRET}"}


@pytest.mark.parametrize("url", ["https://a.example/x", "https://A.Example/x?y=1", "https://a.example:443/x"])
def test_a_host_is_sent_its_token(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert _sent(monkeypatch, url) == [f"Bearer {SECRET}"]


def test_a_port_is_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _sent(monkeypatch, "https://a.example:8443/x") == ["Bearer port"]


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/x",
        "https://a.example:444/x",
        "https://evil-a.example/x",
        "https://a.example.evil.example/x",
        "https://x.a.example/x",
        "https://evil.example/a.example",
        "https://evil.example/?a.example",
    ],
)
def test_no_other_host_is_sent_one(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert _sent(monkeypatch, url) == [None]


def test_a_redirect_within_the_host_keeps_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _sent(monkeypatch, "https://a.example/x", "https://a.example/y") == [f"Bearer {SECRET}"] * 2


@pytest.mark.parametrize(
    "target", ["https://cdn.example/y", "https://b.example/y", "http://a.example/y", "https://a.example:8443/y"]
)
def test_a_redirect_takes_no_token_along(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """A redirect's target does not receive its own host token either: the request did not name that host."""
    assert _sent(monkeypatch, "https://a.example/x", target) == [f"Bearer {SECRET}", None]
    assert _sent(monkeypatch, "https://evil.example/x", target) == [None, None]


def test_a_url_cannot_hide_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FetchError, match="user name"):
        _sent(monkeypatch, "https://a.example@evil.example/x")


def _file(folder: Path, content: Any, mode: int = 0o600) -> Path:
    path = folder / "tokens.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_tokens_are_read_from_a_file(tmp_path: Path) -> None:
    assert read_host_credentials(_file(tmp_path, TOKENS)) == TOKENS


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ValueError, match="chmod 600"):
        read_host_credentials(_file(tmp_path, TOKENS, mode))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"a.example": "' + SECRET,
        [SECRET],
        {"https://a.example": SECRET},
        {"A.example": SECRET},
        {"a.example": 5},
        {"a.example": ""},
        {"a.example": f"{SECRET}\r\nX-Evil: 1"},
        {"a.example": f"{SECRET} "},
    ],
)
def test_a_damaged_file_is_refused_and_not_shown(tmp_path: Path, content: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens\.json") as caught:
        read_host_credentials(_file(tmp_path, content))
    assert SECRET not in str(caught.value)


def test_the_setting_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORIKEET_TOKENS", str(_file(tmp_path, TOKENS)))
    assert load_settings().tokens == tmp_path / "tokens.json"
    _file(tmp_path, TOKENS, 0o644)
    with pytest.raises(SettingsError, match=r"LORIKEET_TOKENS: .*chmod 600"):
        load_settings()
    monkeypatch.setenv("LORIKEET_TOKENS", str(tmp_path / "missing"))
    with pytest.raises(SettingsError, match="LORIKEET_TOKENS: "):
        load_settings()


@pytest.mark.parametrize(("endpoint", "sent"), [("https://a.example", SECRET), ("http://a.example", None)])
def test_the_hub_is_sent_its_token(monkeypatch: pytest.MonkeyPatch, endpoint: str, sent: str | None) -> None:
    """huggingface_hub sends the token to the Hub only."""
    given = []

    class Api:
        def __init__(self, token: str | None) -> None:
            given.append(token)

        def model_info(self, *_: Any, **__: Any) -> None:
            raise ValueError("no such repository")

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(HubError, match="no such repository"):
        Hub(1, TOKENS).checkpoint("owner/name")
    assert given == [sent]


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of the token of `hf auth login`, where there is none yet."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "token"


def _gated(hub: Web) -> None:
    """From now on, each answer of the Hub needs the token."""

    def gated(answer: Answer) -> Answer:
        def give(handler: BaseHTTPRequestHandler) -> None:
            (answer if handler.headers.get("Authorization") == f"Bearer {SECRET}" else reply(status=401))(handler)

        return give

    hub.answers = {path: gated(answer) for path, answer in hub.answers.items()}


HUB_FILES = ["lora.safetensors", "my lora (v1).safetensors", "青禅_ZEN.safetensors", "peñoles v1.safetensors"]


@pytest.mark.parametrize("name", HUB_FILES)
@pytest.mark.parametrize("place", ["HF_TOKEN", "file", "none"])
def test_a_file_of_the_hub_is_sent_the_librarys_token_whatever_its_name(
    sources: FileResolver,
    request_: ResolveContext,
    hub: Web,
    owner: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    place: str,
) -> None:
    if place == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", SECRET)
    elif place == "file":
        owner.write_text(SECRET)
    publish(hub, "owner/name", {name: CONTENT})
    hub.answers[f"/owner/name/resolve/main/{quote(name)}"] = reply(CONTENT)
    _gated(hub)
    if place != "none":
        assert sources.lora("field", "owner/name", request_).path.read_bytes() == CONTENT
        return
    with pytest.raises(InvalidArgument, match="401: it is gated, private or missing; see LORIKEET_TOKENS"):
        sources.lora("field", "owner/name", request_)


def _hub_sent(monkeypatch: pytest.MonkeyPatch, endpoint: str, *urls: str) -> list[str | None]:
    """As `_sent`, by the fetcher of the Hub at this endpoint."""
    net = _Net(dict(pairwise(urls)))
    monkeypatch.setattr(fetch_module, "_open", net.open)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    response = Hub(1, TOKENS).fetcher(["cdn.example"]).fetch(urls[0], LIMITS)
    assert response is not None and b"".join(response.chunks) == CONTENT
    return [net.sent[url] for url in urls]


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [
        ("https://a.example", SECRET),
        ("https://A.example:443", SECRET),
        ("https://a.example:8443", "port"),
        ("https://c.example", "own"),
        ("http://a.example", "own"),  # as the library does; no token of LORIKEET_TOKENS is sent over http
        ("https://user:password@c.example", "own"),
    ],
)
def test_the_hubs_configured_token_comes_before_the_librarys(
    monkeypatch: pytest.MonkeyPatch, owner: Path, endpoint: str, sent: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "own")
    url = f"{endpoint.lower().replace(':443', '').replace('user:password@', '')}/owner/name/resolve/main/%E9%9D%92"
    assert _hub_sent(monkeypatch, endpoint, url) == [f"Bearer {sent}"]
    assert _hub_sent(monkeypatch, endpoint, url, "https://cdn.example/x") == [f"Bearer {sent}", None]
    assert _hub_sent(monkeypatch, endpoint, "https://b.example/x") == [None]


def test_the_librarys_own_token_is_not_sent_where_it_may_not_be(monkeypatch: pytest.MonkeyPatch, owner: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", "own")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    assert _hub_sent(monkeypatch, "https://c.example", "https://c.example/x") == [None]
