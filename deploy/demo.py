"""`make demo`: starts a server, sends one image-to-image request, shows the progress and stops the server.

Before that, it exports the model's graphs if they are missing, so that the server runs it in OpenVINO."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from deploy.demo_model.paths import CHECKPOINT, LORAS, WEIGHTS
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.exported_graphs import export_missing
from deploy.local_server import LocalServer, ServerFailed
from deploy.sheet import Row, sheet
from lorikeet import Client, LorikeetError, Result
from lorikeet.cli import parse_lora
from lorikeet.progress_bar import ProgressBar
from runtime.settings import SettingsError

SCENE = Scene("meadow", "", (Thing("house", "white", "large"),))
PROMPT = "a large lorikeet on a meadow"
STYLED = {"lorikeet": 1.0, "halftone": 0.7}  # the demo model's LoRAs and their scales
console = Console(highlight=False)


def main() -> int:
    arguments = _arguments()
    begun = time.monotonic()
    try:
        result, before = run(arguments)
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
    _report(result, time.monotonic() - begun)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def run(arguments: argparse.Namespace) -> tuple[Result, Image.Image]:
    """Start a server, send the request and stop the server. Returns the result and the input picture."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    before = Image.open(arguments.image).convert("RGB") if arguments.image else draw(SCENE)
    model = Path(arguments.model).resolve() if Path(arguments.model).is_dir() else arguments.model
    if Path(model).exists():
        export_missing(Path(model))
    allowed = [WEIGHTS, *([model] if isinstance(model, Path) else [])]
    server = LocalServer(arguments.out / "server.log", {"local_paths": ":".join(map(str, allowed))}, _show_server_line)
    with server, Client(server.grpc) as client, ProgressBar(console) as bar:
        result = client.image_to_image(
            model_name=str(model),
            prompt=arguments.prompt,
            image=before,
            loras=_loras(arguments),
            noise_strength=0.8,
            guidance_scale=3.0,
            seed=1,
            on_progress=bar.show,
        )
        return result, before


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
    parser.add_argument("--image", help="picture to start from (a drawn scene)")
    parser.add_argument("--prompt", default=PROMPT, help="what the result should show")
    parser.add_argument("--model", default=str(CHECKPOINT), help="diffusers-format folder or Hub id (the demo model)")
    parser.add_argument("--lora", help="LoRA files, PATH or PATH:SCALE, comma-separated (two of the demo model's)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures and the server's log")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
