"""`make gallery`: generates the README's pictures: strengths, LoRA scales, schedulers, few steps and adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
from PIL import Image
from rich.console import Console

from deploy.demo_model.paths import IP_ADAPTER_FILE, WEIGHTS
from deploy.demo_model.world.edges import edges
from deploy.demo_model.world.scene import Scene, Thing, draw
from deploy.local_server import LocalServer
from deploy.sheet import Row, sheet
from lorikeet import Client
from lorikeet.schema import SchedulerName

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)
FEW_STEPS = (1, 2, 4, 8)
BOAT = draw(Scene("plain", "yellow", (Thing("boat", "red", "large"),)))
HOUSE = draw(Scene("meadow", "", (Thing("house", "white", "large"),)))
TREE = draw(Scene("gradient", "orange", (Thing("tree", "green", "large"),)))
console = Console(highlight=False)


class GalleryClient:
    """Requests pictures of the demo model from a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def generate(
        self, image: Image.Image | None, prompt: str, loras: dict[str, float] | None = None, **more: Any
    ) -> Image.Image:
        """Edit `image` by `prompt`, or generate one; `loras` maps names of the demo model's LoRAs to scales."""
        fields = {"noise_strength": 0.8, "num_inference_steps": 20, "guidance_scale": 3.0, "seed": 3} | more
        requested = [{"path": f"loras/{name}.safetensors", "scale": scale} for name, scale in (loras or {}).items()]
        result = self._client.image_to_image(model_name="scenes", prompt=prompt, image=image, loras=requested, **fields)
        console.print(f"{result.seed}: {prompt} {loras or ''} {', '.join(more)}", style="dim")
        return result.images[0]


def strengths(client: GalleryClient) -> list[Row]:
    """Two prompts, each at rising noise strength."""
    asked = ((BOAT, "a large blue fish on a yellow background"), (HOUSE, "a large pink flower on a meadow"))
    return [
        Row(
            f"“{prompt}”, by noise_strength",
            [("image_url", image), *((f"{s}", client.generate(image, prompt, noise_strength=s)) for s in STRENGTHS)],
        )
        for image, prompt in asked
    ]


def loras(client: GalleryClient) -> list[Row]:
    """One LoRA at rising scales, and several at once."""
    prompt = "a large red house on a meadow"
    rows = [
        Row(f"“{prompt}”, LoRA {name} by scale", [(f"{s}", client.generate(HOUSE, prompt, {name: s})) for s in SCALES])
        for name in ("sepia", "halftone")
    ]
    subject = "a large lorikeet on a meadow"
    requested: Sequence[dict[str, float]] = (
        {},
        {"lorikeet": 1.0},
        {"lorikeet": 1.0, "sepia": 1.0},
        {"lorikeet": 1.0, "halftone": 1.0},
        {"sepia": 1.0, "halftone": 1.0},
    )
    pictures = [(" + ".join(names) or "no LoRA", client.generate(HOUSE, subject, dict(names))) for names in requested]
    return [*rows, Row(f"“{subject}”, several LoRAs at once", pictures)]


def schedulers(client: GalleryClient) -> list[Row]:
    """Every scheduler of the API, with one input picture and seed."""
    prompt, across = "a large purple star on a gradient orange background", 6
    painted = [(name.value, client.generate(TREE, prompt, scheduler=name.value)) for name in SchedulerName]
    parts = [painted[start : start + across] for start in range(0, len(painted), across)]
    return [Row("" if index else f"“{prompt}”, by scheduler", part) for index, part in enumerate(parts)]


def few_steps(client: GalleryClient) -> list[Row]:
    """Pictures in 1 to 8 steps with the LCM-LoRA, which takes no guidance, and one in 20 steps without it."""
    asked = ((BOAT, "a large blue fish on a yellow background"), (HOUSE, "a large red house on a meadow"))
    lcm = {"scheduler": "LCM", "guidance_scale": 1.0}
    rows = []
    for image, prompt in asked:
        quick = [
            (
                f"{steps} step{'s' * (steps > 1)}",
                client.generate(image, prompt, {"lcm": 1.0}, num_inference_steps=steps, **lcm),
            )
            for steps in FEW_STEPS
        ]
        rows.append(
            Row(
                f"“{prompt}”, LCM-LoRA by num_inference_steps",
                [*quick, ("20, no LoRA", client.generate(image, prompt))],
            )
        )
    return rows


def adapters(client: GalleryClient) -> list[Row]:
    """A ControlNet and an IP-Adapter at rising scales, and both with a LoRA."""
    outline = edges(draw(Scene("plain", "yellow", (Thing("boat", "red", "small", "left"),))))
    colours = draw(Scene("plain", "blue", (Thing("star", "yellow", "large"),)))
    boat = "a green boat on a pink background"
    rows = [
        Row(
            f"“{boat}”, ControlNet by conditioning_scale",
            [
                ("image_url", outline),
                *((f"{s}", client.generate(None, boat, **controlled(outline, s))) for s in SCALES),
            ],
        ),
        Row(
            "no prompt, IP-Adapter by scale",
            [("ip_adapter_image_url", colours)]
            + [(f"{s}", client.generate(None, "", **image_prompt(colours, s))) for s in SCALES[1:]],
        ),
    ]
    both = {**controlled(outline, 1.0), **image_prompt(colours, 0.7)}
    together = [
        ("ControlNet", outline),
        ("IP-Adapter", colours),
        ("both", client.generate(None, "a boat", **both)),
    ]
    together += [
        (f"both, {name}", client.generate(None, "a boat", {name: 1.0}, **both)) for name in ("sepia", "halftone")
    ]
    return [*rows, Row("“a boat”, ControlNet, IP-Adapter and LoRA together", together)]


def controlled(picture: Image.Image, scale: float) -> dict[str, Any]:
    """The demo model's ControlNet on a picture of edges."""
    return {"controlnets": [{"path": "controlnet_edges", "image_url": picture, "conditioning_scale": scale}]}


def image_prompt(picture: Image.Image, scale: float) -> dict[str, Any]:
    """The demo model's IP-Adapter on a picture."""
    adapter = {"path": "ip_adapter", "weight_name": IP_ADAPTER_FILE, "scale": scale}
    return {"ip_adapter": [adapter | {"ip_adapter_image_url": picture}]}


SHEETS = {"strength": strengths, "loras": loras, "schedulers": schedulers, "few_steps": few_steps, "adapters": adapters}


@contextlib.contextmanager
def _server(address: str, out: Path) -> Iterator[str]:
    """The address of the given server, or of a new local one."""
    if address:
        yield address
        return
    with LocalServer(out / "server.log", {"local_paths": str(WEIGHTS)}) as server:
        yield server.grpc


def main(server: str = "", out: Path = Path("deploy/images")) -> None:
    """Generate the gallery with the server at SERVER (grpc://host:port, must serve the demo model) or a new one."""
    with _server(server, Path("out")) as address, Client(address) as client:
        gallery_client = GalleryClient(client)
        out.mkdir(parents=True, exist_ok=True)
        for name, rows in SHEETS.items():
            sheet(rows(gallery_client)).save(out / f"gallery_{name}.png", optimize=True)
            console.print(f"wrote {out / f'gallery_{name}.png'}")


if __name__ == "__main__":
    typer.run(main)
