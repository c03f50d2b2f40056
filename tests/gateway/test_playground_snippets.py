"""The playground's code for fal's clients: what it sends is the request of the form, whatever the texts hold."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from deploy.local_gateway import LocalGateway
from tests.gateway import wire
from tests.gateway.browser import Playground, chromium

HOSTILE = 'it\'s "quoted" $HOME `id` $(id) \\ \\n <<JSON\nJSON\n ${x} </script> 鳥 \U0001f99c \u2028 %s {y} \t'
FILE_NAME = "it's a $(id) `pic`.png"
CONTENT = b"not a picture, but bytes"
FAKE_CURL = """#!/bin/sh
cat > "$CAPTURED"
printf '%s\\n' "$@" > "$CAPTURED.arguments"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def playground(browser: Browser, gateway: LocalGateway) -> Iterator[Playground]:
    with browser.new_context() as context:
        yield Playground(context.new_page(), gateway.url)


@pytest.fixture
def filled(playground: Playground) -> Playground:
    """The form with hostile texts and a picture that is not uploaded."""
    playground.page.get_by_role("button", name="Add a LoRA").click()
    playground.fill(prompt=HOSTILE, loras__0__path="a'b\"c$d", loras__0__scale="-0.5", seed="12345678901234567890")
    playground.page.get_by_label("Weights such as").check()
    playground.drop(CONTENT, "#init-picture", FILE_NAME)
    return playground


def expected(picture: str) -> dict[str, Any]:
    return {
        "model_name": "scenes",
        "image_url": picture,
        "prompt": HOSTILE.strip(),
        "prompt_weighting": True,
        "noise_strength": 0.8,
        "guidance_scale": 3,
        "seed": "12345678901234567890",
        "loras": [{"path": "a'b\"c$d", "scale": -0.5}],
    }


def code(playground: Playground, language: str) -> str:
    playground.page.get_by_role("tab", name=language, exact=True).click()
    text: str | None = playground.page.locator("#snippet").text_content()
    assert text
    return text


def shell(script: str, folder: Path, **variables: str) -> str:
    """What a POSIX shell prints for a script."""
    environment = os.environ | variables
    return subprocess.run(
        ["sh", "-c", script], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_curl(filled: Playground, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "curl"
    program.parent.mkdir()
    program.write_text(FAKE_CURL)
    program.chmod(0o755)
    (tmp_path / FILE_NAME).write_bytes(CONTENT)
    captured = tmp_path / "captured"
    shell(code(filled, "curl"), tmp_path, PATH=f"{program.parent}:{os.environ['PATH']}", CAPTURED=str(captured))
    assert json.loads(captured.read_text()) == expected(f"data:image/png;base64,{base64.b64encode(CONTENT).decode()}")
    assert f"{filled.url}/run/{wire.IMAGE_TO_IMAGE}" in Path(f"{captured}.arguments").read_text().splitlines()


def test_curl_makes_a_picture(playground: Playground, tmp_path: Path) -> None:
    playground.fill(num_inference_steps="2")
    answer = json.loads(shell(code(playground, "curl"), tmp_path))
    assert answer["images"][0]["width"] == 128


def test_python(filled: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def subscribe(application: str, arguments: dict[str, Any]) -> dict[str, Any]:
        calls.append((application, arguments))
        return {"images": [{"url": ""}]}

    package, client = types.ModuleType("fal_client"), types.ModuleType("fal_client.client")
    package.__dict__.update(subscribe=subscribe, encode_file=lambda name: f"encoded {name}", client=client)
    monkeypatch.setitem(sys.modules, "fal_client", package)
    monkeypatch.setitem(sys.modules, "fal_client.client", client)
    monkeypatch.setenv("FAL_KEY", "any")
    exec(compile(code(filled, "Python"), "snippet", "exec"), {})
    assert calls == [(wire.IMAGE_TO_IMAGE, expected(f"encoded {FILE_NAME}"))]
    assert client.__dict__["RUN_URL_FORMAT"] == f"{filled.url}/run/"
    assert client.__dict__["QUEUE_URL_FORMAT"] == f"{filled.url}/queue/"


def test_javascript(filled: Playground, browser: Browser) -> None:
    lines = code(filled, "JavaScript").split("\n")  # splitlines() would also split at U+2028
    body = "\n".join(line for line in lines if not line.startswith("import "))
    assert [line for line in lines if line.startswith("import ")] == [
        'import { readFile } from "node:fs/promises";',
        'import { fal } from "@fal-ai/client";',
    ]
    with browser.new_context() as context:
        called = context.new_page().evaluate(
            """async (body) => {
                const called = {};
                const fal = {
                    config: (options) => Object.assign(called, options),
                    subscribe: async (application, { input }) => {
                        called.file = await input.image_url.text();
                        Object.assign(called, { application, input: { ...input, image_url: input.image_url.type } });
                        return { data: { images: [{ url: "" }] } };
                    },
                };
                const readFile = async (name) => `content of ${name}`;
                const AsyncFunction = (async () => {}).constructor;
                await new AsyncFunction("fal", "readFile", body)(fal, readFile);
                return called;
            }""",
            body,
        )
    assert called == {
        "proxyUrl": {"url": f"{filled.url}/api/fal/proxy", "when": "always"},
        "application": wire.IMAGE_TO_IMAGE,
        "file": f"content of {FILE_NAME}",
        "input": expected("image/png"),
    }


def test_the_tabs_and_the_copy_button(browser: Browser, gateway: LocalGateway) -> None:
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        playground = Playground(context.new_page(), gateway.url)
        page = playground.page
        page.get_by_role("tab", name="curl").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-python"
        page.locator("#snippets .copy").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == code(playground, "Python")
