"""The command `lorikeet`: generate images, replay a request, print the schema."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from lorikeet.client.result import Result
from lorikeet.client.sync import Client
from lorikeet.progress_bar import ProgressBar
from lorikeet.protocol.errors import LorikeetError
from lorikeet.replay import differences, read_original, request_of, same_images
from lorikeet.schema import ImageToImageInput, ImageToImageOutput, SchedulerName

app = typer.Typer(
    help="Stable Diffusion image-to-image with LoRAs, on a Lorikeet server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

INTERRUPTED = 130
DIFFERENT = 3

ServerUrl = Annotated[str, typer.Option("--url", help="grpc://host:port or http://host:port.")]
LOCAL_SERVER = "grpc://127.0.0.1:8001"


_REST = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("gateway", context_settings=_REST, add_help_option=False)
def gateway(ctx: typer.Context) -> None:
    """Serve the fal protocol to unchanged fal clients."""
    _run_gateway_command(ctx)


@app.command("keys", context_settings=_REST, add_help_option=False)
def keys(ctx: typer.Context) -> None:
    """Add, list and revoke API keys of the gateway."""
    _run_gateway_command(ctx)


def _run_gateway_command(ctx: typer.Context) -> None:
    # Imported here because the web server and the queue take a second to load.
    try:
        from lorikeet.gateway.commands import app as gateway_app
    except ModuleNotFoundError as error:
        errors.print(f"lorikeet: {error.name} is missing: pip install 'lorikeet\\[gateway]'")
        raise typer.Exit(1) from error
    gateway_app([ctx.info_name or "", *ctx.args], prog_name="lorikeet")


@app.command()
def generate(
    url: ServerUrl = LOCAL_SERVER,
    model: Annotated[str | None, typer.Option(help="Base checkpoint: URL, Hub id or path.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the image should show.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What the image should not show.")] = None,
    image: Annotated[str | None, typer.Option(help="Init image: path or URL.")] = None,
    strength: Annotated[float | None, typer.Option(help="Noise added to the init image, 0 to 1.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="PATH or PATH:SCALE; repeatable.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Classifier-free guidance.")] = None,
    scheduler: Annotated[SchedulerName | None, typer.Option(help="Sampler.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; random if absent.")] = None,
    num_images: Annotated[int | None, typer.Option(help="Images to generate.")] = None,
    priority: Annotated[int | None, typer.Option(help="1 (first), 2 (default) or 3 (last).")] = None,
    timeout: Annotated[float | None, typer.Option(help="Cancel the request after this many seconds.")] = None,
    image_format: Annotated[str | None, typer.Option("--format", help="png or jpeg.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", exists=True, dir_okay=False, help="File of a request; the options override its fields."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Image file, or a folder.")] = Path("out.png"),
    response: Annotated[Path | None, typer.Option(help="File for the response's JSON, as `replay` reads it.")] = None,
) -> None:
    """Generate images and write them to files."""
    fields = {
        "model_name": model,
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "image_url": image,
        "noise_strength": strength,
        "loras": [parse_lora(text) for text in lora] if lora else None,
        "num_inference_steps": steps,
        "guidance_scale": guidance_scale,
        "scheduler": scheduler,
        "seed": seed,
        "num_images": num_images,
        "image_format": image_format,
    }
    with _exit_on_error():
        result = _run(url, _load(json_file) | _given(fields), priority, timeout)
        _report(result, result.save(out))
        if response is not None:
            response.write_text(result.response.to_json())


@app.command()
def replay(
    original: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A response's JSON, or a picture with a receipt.")
    ],
    url: ServerUrl = LOCAL_SERVER,
    file: Annotated[
        list[str] | None, typer.Option(help="FIELD=PATH of a file that the request sent, e.g. image_url=in.png.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Image file, or a folder, for the new images.")] = None,
) -> None:
    """Send a request again, and say what differs from its receipt and whether the images are equal."""
    files = dict(item.partition("=")[::2] for item in file or [])
    with _exit_on_error():
        before = read_original(original)
        result = _run(url, request_of(before, files))
        if out is not None:
            _report(result, result.save(out))
    for line in differences(before.receipt, result.response.receipt):
        console.print(f"differs: {line}", markup=False)
    is_same = same_images(before, result)
    console.print("the images are equal" if is_same else "the images differ")
    if not is_same:
        raise typer.Exit(DIFFERENT)


@app.command()
def schema(
    output: Annotated[bool, typer.Option("--output", help="Print the output's schema instead of the input's.")] = False,
) -> None:
    """Print the JSON schema of the input, or of the output."""
    message = ImageToImageOutput if output else ImageToImageInput
    typer.echo(json.dumps(message.model_json_schema(), indent=2))


def parse_lora(text: str) -> dict[str, Any]:
    """A LoraWeight of PATH or PATH:SCALE; the part after the last colon is a scale only if it is a number."""
    path, _, scale = text.rpartition(":")
    try:
        return {"path": path, "scale": float(scale)} if path else {"path": text}
    except ValueError:
        return {"path": text}


def _load(json_file: Path | None) -> dict[str, Any]:
    if json_file is None:
        return {}
    content = json.loads(json_file.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{json_file}: expected one JSON object")
    return content


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _run(url: str, request: dict[str, Any], priority: int | None = None, timeout: float | None = None) -> Result:
    with Client(url) as client, ProgressBar(errors) as progress:
        return client.image_to_image(request, on_progress=progress.show, priority=priority, timeout=timeout)


def _report(result: Result, paths: list[Path]) -> None:
    for path in paths:
        console.print(str(path), markup=False)
    console.print(f"seed {result.seed}")
    if result.timings:
        console.print(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in result.timings.items()))
    for warning in result.response.warnings:
        errors.print(f"warning: {warning}", markup=False)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """An error inside this context, or Ctrl+C, ends the command with a message."""
    try:
        yield
    except (LorikeetError, OSError, ValueError) as error:
        _fail(str(error), code=1)
    except KeyboardInterrupt:
        _fail("cancelled", code=INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    errors.print(f"error: {' '.join(message.split())}", markup=False)
    raise typer.Exit(code)
