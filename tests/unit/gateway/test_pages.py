"""The playground's files over HTTP: types, policy, ETags and names."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

import lorikeet.gateway
from lorikeet.gateway.routes import pages
from lorikeet.schema import SchedulerName

FOLDER = Path(lorikeet.gateway.__file__).parent / "playground"


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    app.include_router(pages.router)
    settings = SimpleNamespace(base_url="https://pictures.example:8443/lorikeet", is_loopback=True)
    app.state.services = SimpleNamespace(settings=settings, keys=SimpleNamespace(is_empty=lambda: False))
    return TestClient(app)


def test_the_page_may_load_and_call_only_its_gateway(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self' https://pictures.example:8443"
    assert policy["img-src"] == "'self' https://pictures.example:8443 blob: data:"
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_every_file_has_its_type_and_names_no_other_host(client: TestClient, path: Path) -> None:
    answer = client.get("/" if path.name == "index.html" else f"/playground/{path.name}")
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    types |= {".json": "application/json", ".svg": "image/svg+xml"}
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == types[path.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert set(re.findall(r"https?://[\w.]+", answer.text)) <= {"http://www.w3.org"}  # the name of SVG


def test_a_browser_gets_a_file_again_only_when_it_changed(client: TestClient) -> None:
    first = client.get("/playground/app.js")
    for tag in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = client.get("/playground/app.js", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    assert client.get("/playground/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2froutes%2fpages.py", "%2e%2e/app.py", "index.html", "__pycache__"])
def test_no_other_file_is_served(client: TestClient, name: str) -> None:
    assert client.get(f"/playground/{name}").status_code == 404


def test_config_holds_the_schema_and_whether_a_key_is_needed(client: TestClient) -> None:
    config = client.get("/playground/config.json").json()
    assert config["needs_key"] is True
    assert config["endpoint"] == "fal-ai/lora/image-to-image"
    assert config["schema"]["$defs"]["SchedulerName"]["enum"] == [name.value for name in SchedulerName]
    assert config["size_presets"]["portrait_4_3"] == [768, 1024]
