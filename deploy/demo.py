"""`make demo`: one picture through a real server, from start to stop, with everything shown on the way."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from deploy.local_server import LocalServer, ServerFailed
from deploy.scene import draw_scene
from lorikeet import Client, LorikeetError, Result
from lorikeet.cli import parse_lora
from lorikeet.progress import ProgressBar
from runtime.settings import demo_folder
from tests.tiny import write_all

TINY = demo_folder()
console = Console(highlight=False)


def main() -> int:
    arguments = _arguments()
    begun = time.monotonic()
    try:
        result, before = run(arguments)
    except (LorikeetError, ServerFailed, OSError) as error:
        console.print(f"lorikeet: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("lorikeet: stopped")
        return 130
    picture = result.images[0]
    written = [arguments.out / "demo.png", arguments.out / "demo_before_after.png"]
    picture.save(written[0])
    _side_by_side(before, picture).save(written[1])
    _report(result, time.monotonic() - begun)
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)
    return 0


def run(arguments: argparse.Namespace) -> tuple[Result, Image.Image]:
    """Start a server, send the request, stop the server: the result, and the picture that was sent."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_all(TINY)
    before = Image.open(arguments.image).convert("RGB") if arguments.image else draw_scene()
    model = arguments.model or str(TINY / "sd15")
    loras = [parse_lora(text) for text in arguments.lora.split(",")] if arguments.lora else _tiny_loras()
    allowed = [str(TINY)] + ([str(Path(model).resolve())] if Path(model).is_dir() else [])
    server = LocalServer(arguments.out / "server.log", {"local_paths": ":".join(allowed)}, _tell)
    with server, Client(server.grpc) as client, ProgressBar(console) as bar:
        result = client.image_to_image(
            model_name=str(Path(model).resolve()) if Path(model).is_dir() else model,
            prompt=arguments.prompt,
            image=before,
            loras=loras,
            noise_strength=0.6,
            seed=1,
            on_progress=bar.show,
        )
        return result, before


def _tiny_loras() -> list[dict[str, object]]:
    folder = TINY / "loras" / "sd15"
    return [{"path": str(folder / f"{name}.safetensors"), "scale": 0.7} for name in ("peft", "kohya")]


def _tell(line: str) -> None:
    console.print(f"server: {line}", style="dim")


def _side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + right.width + 8, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 8, 0))
    return both


def _report(result: Result, total: float) -> None:
    table = Table("stage", "seconds", title=f"engine {result.response.engine}, {result.response.precision}")
    for stage, seconds in result.timings.items():
        table.add_row(stage, f"{seconds:.2f}")
    table.add_row("demo, start to stop", f"{total:.2f}")
    console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--image", help="picture to start from (a drawn scene)")
    parser.add_argument("--prompt", default="a red fish under the sun", help="what the result should show")
    parser.add_argument("--model", help="diffusers-format folder or Hub id (a tiny checkpoint with random weights)")
    parser.add_argument("--lora", help="LoRA files, PATH or PATH:SCALE, comma-separated (two tiny ones)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures and the server's log")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
