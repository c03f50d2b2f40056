"""`python -m deploy.playground_picture` makes deploy/images/playground.png again: the playground after a request.

It needs Chromium (`apt-get install chromium`), and uses the font Inter if it is installed (`fonts-inter`).
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from deploy.demo import PROMPT, SCENE, STYLED
from deploy.demo_model.paths import WEIGHTS
from deploy.demo_model.world.scene import draw
from deploy.local_gateway import LocalGateway
from deploy.local_server import LocalServer

PICTURE = Path(__file__).parent / "images" / "playground.png"
SIZE = {"width": 1240, "height": 880}
COLOURS = 256
SPLIT = 30  # percent of the picture that show it before


def main() -> int:
    program = shutil.which("chromium")
    if program is None:
        print("lorikeet: chromium is missing: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.png"
        draw(SCENE).save(scene)
        server = LocalServer(folder / "server.log", {"local_paths": str(WEIGHTS), "store": str(folder / "store")})
        with server:
            settings = {"servers": server.grpc, "data": str(folder / "data")}
            with LocalGateway(folder / "gateway.log", settings) as gateway, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                page = browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
                _make_picture(page, gateway.url, scene)
                _save(page.screenshot())
                browser.close()
    print(f"wrote {PICTURE}")
    return 0


def _make_picture(page: Page, url: str, scene: Path) -> None:
    """The request of `make demo`."""
    page.goto(url)
    page.get_by_label("Picture, file").set_input_files(scene)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Seed", exact=True).fill("1")
    for index, (lora, scale) in enumerate(STYLED.items()):
        page.get_by_role("button", name="Add a LoRA").click()
        item = page.get_by_role("group", name=f"LoRA {index + 1}")
        item.get_by_label("File").fill(f"loras/{lora}.safetensors")
        item.get_by_label("Scale").fill(str(scale))
    page.get_by_role("button", name="Generate").click()
    page.locator("#compare").wait_for()
    page.get_by_label("Boundary between before and after").fill(str(SPLIT))
    page.locator("#request").evaluate("(form) => form.scrollTo(0, 0)")
    page.locator("#history img").wait_for()


def _save(png: bytes) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
