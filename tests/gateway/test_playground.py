"""The playground page in headless Chromium, on a real gateway with a real Triton server."""

from __future__ import annotations

import io
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer
from lorikeet.gateway.database import open_database
from lorikeet.gateway.keys import KeyStore
from tests.gateway import wire
from tests.gateway.browser import Playground, chromium

HOUSE = Scene("meadow", "", (Thing("house", "white", "large"),))
SUBMIT = f"/queue/{wire.IMAGE_TO_IMAGE}"
NARROW, WIDE = 360, 1440


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Ends with this module: playwright's event loop keeps asyncio's tests from running.
    with chromium() as running:
        yield running


@pytest.fixture
def playground(browser: Browser, gateway: LocalGateway) -> Iterator[Playground]:
    context = browser.new_context()
    page = Playground(context.new_page(), gateway.url)
    yield page
    assert page.failures == []
    assert [sent.url for sent in page.requests if not sent.url.startswith((gateway.url, "blob:", "data:"))] == []
    context.close()


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def download(url: str) -> Image.Image:
    with urllib.request.urlopen(url) as reply:
        return Image.open(io.BytesIO(reply.read())).convert("RGB")


def pixels(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(picture, dtype=np.float32)


def test_a_dropped_picture_comes_back_changed_and_the_progress_bar_moves(playground: Playground) -> None:
    page = playground.page
    playground.drop(png(draw(HOUSE)), "#init-picture")
    playground.fill(prompt="a large red fish on the sea", num_inference_steps="100", seed="1")
    playground.record_progress()
    playground.generate()
    entry = playground.wait_result()

    states = playground.recorded()
    steps = [done for done, _, _ in states if done is not None]
    assert len(set(steps)) >= 5
    assert steps == sorted(steps)
    assert steps[-1] == 100
    assert any(re.fullmatch(r"\d+/100", text) and re.fullmatch(r"[\d.]+ it/s", speed) for _, text, speed in states)

    before, after = (page.locator(f"#compare .{name}").get_attribute("src") for name in ("before", "after"))
    assert before is not None and after is not None
    assert after == entry["output"]["images"][0]["url"]
    assert page.locator("#download").get_attribute("href") == after
    assert np.array_equal(pixels(download(before)), pixels(draw(HOUSE)))
    assert np.abs(pixels(download(after)) - pixels(draw(HOUSE))).mean() > 10
    assert page.evaluate("document.querySelector('#compare .after').naturalWidth") == 128
    assert "seed 1  ·  128" in playground.text("#facts")
    page.locator("#receipt summary").click()
    assert '"engine"' in playground.text("#receipt pre")


def test_cancel_ends_a_running_request(playground: Playground, gateway: LocalGateway) -> None:
    playground.fill(num_inference_steps="150", num_images="8")
    playground.record_progress()
    playground.generate()
    playground.wait_until(lambda: any(done for done, _, _ in playground.recorded()))
    in_flight = playground.stored("lorikeet.in_flight")
    assert in_flight is not None
    playground.page.locator("#cancel").click()
    playground.wait_until(lambda: playground.page.locator("#generate").is_visible())

    assert playground.text("#failure") == "Cancelled"
    assert max(done or 0 for done, _, _ in playground.recorded()) < 150
    request_id = re.search(r'"id":"([^"]+)"', in_flight)
    assert request_id is not None
    assert wire.result(gateway.url, request_id[1]).status == 499
    assert playground.history() == []


def test_invalid_fields_show_their_errors(playground: Playground) -> None:
    page = playground.page
    page.get_by_role("button", name="Add a LoRA").click()
    page.get_by_role("button", name="Add a LoRA").click()
    playground.fill(num_inference_steps="999", loras__0__path="loras/sepia.safetensors", guidance_scale="-1")
    playground.generate()
    playground.wait_until(playground.errors)
    assert playground.errors() == {
        "num_inference_steps": "Input should be less than or equal to 150",
        "guidance_scale": "Input should be greater than or equal to 0",
        "path": "String should have at least 1 character",
    }
    assert playground.field("loras[1].path").locator(".error").is_visible()
    invalid = playground.field("num_inference_steps").locator("[aria-invalid=true]")
    assert invalid.evaluate("(input) => document.getElementById(input.getAttribute('aria-describedby')).textContent")

    page.get_by_role("button", name="Remove LoRA 2").click()
    page.get_by_role("button", name="Add a ControlNet").click()
    playground.generate()
    playground.wait_until(lambda: "image_url" in playground.errors())
    # The first one on the page has the focus; the answer names those of the ControlNet first.
    steps = playground.field("num_inference_steps").locator("input[type=number]")
    assert steps.evaluate("(input) => input === document.activeElement")

    page.get_by_role("button", name="Remove ControlNet 1").click()
    playground.fill(num_inference_steps="2", guidance_scale="3")
    playground.generate()
    assert playground.wait_result()["input"]["loras"] == [{"path": "loras/sepia.safetensors"}]
    assert playground.errors() == {}


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        pytest.param({"model_name": "no-such-model"}, "model_name", "no-such-model", id="found by the server"),
        pytest.param(
            {"clip_skip": '{"clip_skip": 7}'}, "", "clip_skip: Input should be", id="in the JSON of more fields"
        ),
        pytest.param({"clip_skip": "{"}, "", "JSON", id="no JSON"),
    ],
)
def test_an_error_is_shown_at_its_field(
    playground: Playground, fields: dict[str, str], field: str, message: str
) -> None:
    if "clip_skip" in fields:
        playground.page.locator("#more summary").click()
        playground.page.locator("#more textarea").fill(fields["clip_skip"])
    else:
        playground.fill(**fields)
    playground.generate()
    playground.wait_until(playground.errors)
    assert list(playground.errors()) == [field]
    assert message in playground.errors()[field]


def test_all_parts_of_the_form_reach_the_request(playground: Playground, gateway: LocalGateway) -> None:
    page = playground.page
    page.get_by_role("button", name="Add a LoRA").click()
    page.get_by_role("button", name="Add a ControlNet").click()
    page.get_by_role("button", name="Add an IP-Adapter").click()
    playground.fill(
        negative_prompt="a house",
        num_inference_steps="4",
        seed="18446744073709551615",  # above 2^53, where JavaScript's numbers are not exact
        num_images="2",
        loras__0__path="loras/halftone.safetensors",
        loras__0__scale="0.7",
        controlnets__0__path="controlnet_edges",
        controlnets__0__conditioning_scale="0.9",
        controlnets__0__end_percentage="0.5",
        ip_adapter__0__path="ip_adapter",
        ip_adapter__0__weight_name="ip_adapter.safetensors",
        ip_adapter__0__scale="0.6",
    )
    page.get_by_label("Scheduler").select_option("Euler A")
    page.get_by_label("Format").select_option("jpeg")
    page.get_by_label("Size").select_option("Width and height")
    page.get_by_label("Width in pixels").fill("128")
    page.get_by_label("Height in pixels").fill("96")
    page.get_by_label("Weights such as").check()
    playground.drop(png(edges(draw(HOUSE))), "[data-field=controlnets] [data-kind=picture]")
    playground.paste(png(draw(HOUSE)), "[data-field=ip_adapter] .url")
    playground.generate()
    entry = playground.wait_result()

    (sent,) = playground.posted(SUBMIT)
    control, adapter = sent["controlnets"][0].pop("image_url"), sent["ip_adapter"][0].pop("ip_adapter_image_url")
    assert np.array_equal(pixels(download(control)), pixels(edges(draw(HOUSE)).convert("RGB")))
    assert np.array_equal(pixels(download(adapter)), pixels(draw(HOUSE)))
    assert sent == {
        "model_name": "scenes",
        "prompt": "a large red fish on the sea",
        "negative_prompt": "a house",
        "prompt_weighting": True,
        "image_size": {"width": 128, "height": 96},
        "num_inference_steps": 4,
        "guidance_scale": 3,
        "scheduler": "Euler A",
        "seed": "18446744073709551615",
        "num_images": 2,
        "image_format": "jpeg",
        "loras": [{"path": "loras/halftone.safetensors", "scale": 0.7}],
        "controlnets": [{"path": "controlnet_edges", "conditioning_scale": 0.9, "end_percentage": 0.5}],
        "ip_adapter": [{"path": "ip_adapter", "weight_name": "ip_adapter.safetensors", "scale": 0.6}],
    }
    first, second = (download(image["url"]) for image in entry["output"]["images"])
    assert first.size == (128, 96)
    page.locator("#images button").nth(1).click()
    shown = page.locator("#compare .after").get_attribute("src")
    assert shown is not None
    assert np.array_equal(pixels(download(shown)), pixels(second))


def test_an_earlier_result_brings_its_settings_back(playground: Playground) -> None:
    page = playground.page
    playground.drop(png(draw(HOUSE)), "body")
    playground.fill(num_inference_steps="2", seed="5")
    page.locator("#more summary").click()
    page.locator("#more textarea").fill('{"clip_skip": 1}')
    playground.generate()
    first = playground.wait_result()
    page.get_by_role("button", name="Remove picture").click()
    playground.fill(prompt="a boat", num_inference_steps="3", seed="6")
    page.locator("#more textarea").fill("")
    playground.generate()
    playground.wait_until(lambda: len(playground.history()) == 2)

    playground.open()  # the tab keeps the session over a reload
    assert playground.field("prompt").locator("textarea").input_value() == "a boat"
    page.locator("#history button").nth(1).click()
    playground.generate()
    playground.wait_until(lambda: len(playground.history()) == 3)
    again = playground.history()[0]
    assert again["input"] == first["input"]
    assert again["output"]["images"][0]["sha256"] == first["output"]["images"][0]["sha256"]


def test_a_reload_continues_to_follow_the_request(playground: Playground) -> None:
    playground.fill(num_inference_steps="100", num_images="2")
    playground.generate()
    playground.wait_until(lambda: playground.stored("lorikeet.in_flight"))
    playground.open()
    assert playground.page.locator("#cancel").is_visible()
    assert playground.wait_result()["input"]["num_inference_steps"] == 100
    assert len(playground.posted(SUBMIT)) == 1


def test_without_a_stream_the_page_polls(playground: Playground) -> None:
    playground.page.route("**/status/stream*", lambda route: route.abort())
    playground.fill(num_inference_steps="100")
    playground.record_progress()
    playground.generate()
    playground.wait_result()
    assert any("/status?logs=1" in sent.url for sent in playground.requests)
    assert any(done for done, _, _ in playground.recorded())


def test_the_page_asks_for_a_key_when_the_gateway_has_keys(
    browser: Browser, triton: LocalServer, tmp_path: Path
) -> None:
    settings = {"servers": triton.grpc, "data": str(tmp_path / "data")}
    store = KeyStore(open_database(f"sqlite:///{tmp_path / 'data' / 'gateway.sqlite'}"))
    _, credentials = store.add("playground")
    with LocalGateway(tmp_path / "gateway.log", settings) as gateway, browser.new_context() as context:
        playground = Playground(context.new_page(), gateway.url)
        page = playground.page
        assert page.locator("#key").is_visible()
        playground.fill(num_inference_steps="2")
        page.locator("#key").fill("nobody:nothing")
        page.locator("#key").press("Enter")
        playground.generate()
        playground.wait_until(lambda: page.locator("#key").is_visible())
        assert playground.text("#key-hint") == "invalid key credentials"
        page.locator("#key").fill(credentials)
        page.locator("#key").press("Enter")
        playground.drop(png(draw(HOUSE)), "#init-picture")
        playground.generate()
        playground.wait_result()
        assert "$FAL_KEY" in playground.text("#snippet")
        assert credentials not in playground.text("#snippet")
        assert page.evaluate("JSON.stringify(localStorage)") == "{}"


def test_the_boundary_between_before_and_after_follows_keys_and_pointer(playground: Playground) -> None:
    page = playground.page
    playground.drop(png(draw(HOUSE)), "#init-picture")
    playground.fill(num_inference_steps="2")
    page.locator("#generate").focus()
    page.keyboard.press("Control+Enter")
    playground.wait_result()
    compare, boundary = page.locator("#compare"), page.get_by_label("Boundary between before and after")
    split = "(figure) => parseFloat(getComputedStyle(figure).getPropertyValue('--split'))"
    boundary.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert compare.evaluate(split) == 55
    box = compare.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 80)
    page.mouse.up()
    assert compare.evaluate(split) == pytest.approx(20, abs=1)


def test_every_control_has_a_name_and_tab_reaches_it(playground: Playground) -> None:
    page = playground.page
    for name in ("Add a LoRA", "Add a ControlNet", "Add an IP-Adapter"):
        page.get_by_role("button", name=name).click()
    page.locator("#more summary").click()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in tree if any(item["name"] == "focusable" for item in node.get("properties", []))]
    nameless = [
        node for node in controls if not node.get("name", {}).get("value") and node["role"]["value"] != "RootWebArea"
    ]
    assert len(controls) > 40
    assert nameless == []

    page.locator("body").press("Tab")
    seen = [page.evaluate("document.activeElement.outerHTML.slice(0, 80)")]
    while 'id="generate"' not in seen[-1] and len(seen) < 100:
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or 'type="file"' in seen[-1], seen[-1]  # the area around a file input has the outline
    assert 'id="generate"' in seen[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_page_fits_and_its_colours_have_contrast(
    browser: Browser, gateway: LocalGateway, scheme: str, width: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:  # type: ignore[arg-type]
        playground = Playground(context.new_page(), gateway.url)
        for name in ("Add a LoRA", "Add a ControlNet", "Add an IP-Adapter"):
            playground.page.get_by_role("button", name=name).click()
        assert playground.page.evaluate("document.documentElement.scrollWidth") == width
        backgrounds = {
            name: luminance(colour(playground, name)) for name in ("--paper", "--surface", "--sunken", "--danger-wash")
        }
        assert (backgrounds["--paper"] > 0.5) == (scheme == "light")
        texts = [(text, ground) for text in ("--ink", "--muted") for ground in ("--paper", "--surface", "--sunken")]
        for text, ground in [*texts, ("--danger", "--danger-wash"), ("--danger", "--surface")]:
            assert contrast(luminance(colour(playground, text)), backgrounds[ground]) >= 4.5, (text, ground)
        button = [luminance(colour(playground, name)) for name in ("--on-accent", "--accent")]
        assert contrast(*button) >= 4.5


def test_the_toggle_overrides_the_scheme_of_the_system(playground: Playground) -> None:
    def is_dark() -> bool:
        return luminance(colour(playground, "--paper")) < 0.5

    toggle = playground.page.locator("#theme-toggle")
    assert not is_dark()
    toggle.click()
    assert not is_dark()
    toggle.click()
    assert is_dark()
    playground.open()
    assert is_dark()
    assert toggle.inner_text() == "Dark"


def colour(playground: Playground, name: str) -> list[int]:
    """The red, green and blue of a colour of the theme."""
    text = playground.page.evaluate(
        """(name) => {
            document.body.style.color = `var(${name})`;
            const shown = getComputedStyle(document.body).color;
            document.body.style.color = "";
            return shown;
        }""",
        name,
    )
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def luminance(rgb: list[int]) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: float, second: float) -> float:
    """The contrast of two luminances, as WCAG 2 defines it."""
    darker, lighter = sorted((first, second))
    return (lighter + 0.05) / (darker + 0.05)
