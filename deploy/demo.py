"""`make demo`: starts a server, sends one image-to-image request, shows the progress and stops the server.

Before that, it exports the model's graphs if they are missing, so that the server runs it in OpenVINO. With the demo
model, a second request shows a LoRA, a ControlNet and an IP-Adapter together."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from deploy.demo_model.paths import (
    CHECKPOINT,
    CONTROLNET,
    IMAGE_ENCODER,
    IP_ADAPTER,
    IP_ADAPTER_FILE,
    LORAS,
    WEIGHTS,
)
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.exported_graphs import export_missing
from deploy.local_server import LocalServer, ServerFailed
from deploy.sheet import Row, sheet
from lorikeet import Client, Job, LorikeetError, Result
from lorikeet.cli import parse_lora
from lorikeet.progress_bar import ProgressBar
from runtime.settings import SettingsError

ADAPTERS = (CONTROLNET, IMAGE_ENCODER, IP_ADAPTER / IP_ADAPTER_FILE)
OUTLINE = Scene("plain", "yellow", (Thing("boat", "red", "large"),))
COLOURS = Scene("plain", "blue", (Thing("star", "yellow", "large"),))
SCENE = Scene("meadow", "", (Thing("house", "white", "large"),))
PROMPT = "a large lorikeet on a meadow"
STYLED = {"lorikeet": 1.0, "halftone": 0.7}  # the demo model's LoRAs and their scales
console = Console(highlight=False)


def main() -> int:
    arguments = _arguments()
    begun = time.monotonic()
    try:
        result, before, together = run(arguments)
    except (LorikeetError, ServerFailed, SettingsError, OSError) as error:
        console.print(f"lorikeet: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("lorikeet: stopped")
        return 130
    picture = result.images[0]
    written = [arguments.out / "demo.png", arguments.out / "demo_before_after.png"]
    picture.save(written[0])
    sheet([Row("", [("before", before), ("after", picture)])]).save(written[1])
    if together:
        written.append(arguments.out / "demo_adapters.png")
        sheet([together]).save(written[-1])
    _report(result, time.monotonic() - begun)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def run(arguments: argparse.Namespace) -> tuple[Result, Image.Image, Row | None]:
    """Start a server, send the requests and stop the server.

    Returns the result, the input picture, and with the demo model a row of pictures of its adapters.
    """
    arguments.out.mkdir(parents=True, exist_ok=True)
    before = _upright(arguments.image) if arguments.image else draw(SCENE)
    model = Path(arguments.model).resolve() if Path(arguments.model).exists() else arguments.model
    is_demo = Path(arguments.model) == CHECKPOINT and not arguments.lora
    allowed = [WEIGHTS]
    if isinstance(model, Path):
        export_missing([model, *(ADAPTERS if is_demo else ())])
        allowed.append(model if model.is_dir() else model.parent)
    server = LocalServer(arguments.out / "server.log", {"local_paths": ":".join(map(str, allowed))}, _show_server_line)
    with server, Client(server.grpc) as client, ProgressBar(console) as bar:
        # Sent first: the parts that only this request needs are loaded while the other one is computed.
        adapters = submit_adapters(client) if is_demo else None
        result = client.image_to_image(
            model_name=str(model),
            prompt=arguments.prompt,
            image=arguments.image or before,
            loras=_loras(arguments),
            noise_strength=0.8,
            guidance_scale=3.0,
            seed=1,
            on_progress=bar.show,
        )
        return result, before, _row_of(adapters.result()) if adapters else None


def _upright(path: Path) -> Image.Image:
    """The picture as the server reads it, for the sheet."""
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def submit_adapters(client: Client) -> Job:
    """Ask for a picture with the demo model's ControlNet, IP-Adapter and a LoRA."""
    return client.submit(
        model_name=str(CHECKPOINT),
        prompt="a boat",
        loras=[{"path": str(LORAS / "halftone.safetensors"), "scale": 0.7}],
        controlnets=[{"path": str(CONTROLNET), "image_url": edges(draw(OUTLINE))}],
        ip_adapter=[{"path": str(IP_ADAPTER), "weight_name": IP_ADAPTER_FILE, "ip_adapter_image_url": draw(COLOURS)}],
        num_inference_steps=12,
        guidance_scale=3.0,
        seed=3,
    )


def _row_of(result: Result) -> Row:
    """The picture, and those that condition it."""
    conditions = [("ControlNet", edges(draw(OUTLINE))), ("IP-Adapter", draw(COLOURS))]
    return Row("", [*conditions, ("both and a LoRA", result.images[0])])


def _loras(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The LoRAs of --lora; by default two for the demo model and none for another model."""
    if arguments.lora:
        return [parse_lora(text) for text in arguments.lora.split(",")]
    if Path(arguments.model) != CHECKPOINT:
        return []
    return [{"path": str(LORAS / f"{name}.safetensors"), "scale": scale} for name, scale in STYLED.items()]


def _show_server_line(line: str) -> None:
    console.print(f"server: {line}", style="dim")


def _report(result: Result, total: float) -> None:
    engine = result.response.receipt.engine
    table = Table("stage", "seconds", title=f"engine {engine.name}, {engine.precision}")
    for stage, seconds in result.timings.items():
        table.add_row(stage, f"{seconds:.2f}")
    table.add_row("demo, start to stop", f"{total:.2f}")
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--image", type=Path, help="picture to start from (a drawn scene)")
    parser.add_argument("--prompt", default=PROMPT, help="what the result should show")
    parser.add_argument(
        "--model", default=str(CHECKPOINT), help="a checkpoint's folder, file or Hub id (the demo model)"
    )
    parser.add_argument("--lora", help="LoRA files, PATH or PATH:SCALE, comma-separated (two of the demo model's)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures and the server's log")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
