"""The Hugging Face Hub: what is downloaded of a repository, and what its cache serves without a network."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from huggingface_hub import constants

from runtime.files.hub import Hub, HubError, hub_cache
from tests.unit.runtime.hub import COMMIT, downloaded, publish
from tests.unit.runtime.web import Web, reply

REPO = "owner/name"
LORA = "pytorch_lora_weights.safetensors"
PLENTY = 1 << 20
NEEDED = {
    "model_index.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"0123",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model-00001-of-00002.safetensors": b"0123",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors": b"0123",
    "unet/diffusion_pytorch_model.safetensors.index.json": b"{}",
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.safetensors": b"0123",
}
NOT_NEEDED = {
    "README.md": b"long" * 1000,
    "sd-v1-4.ckpt": b"large" * 1000,
    "v1-5-pruned.safetensors": b"large" * 1000,
    "unet/diffusion_pytorch_model.fp16.safetensors": b"large" * 1000,
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"large" * 1000,
    "unet/diffusion_pytorch_model.bin": b"large" * 1000,
    "unet/model.onnx": b"large" * 1000,
    "safety_checker/model.safetensors": b"large" * 1000,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, hub: Web) -> Path:
    """The cache of the Hub, which is `web`."""
    return tmp_path / "hub"


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_a_checkpoint_needs_is_downloaded_and_nothing_else(web: Web) -> None:
    publish(web, REPO, NEEDED | NOT_NEEDED)
    folder = Hub(PLENTY).checkpoint(REPO)
    assert _files(folder) == downloaded(web, REPO) == set(NEEDED)
    assert (folder / "unet/config.json").read_bytes() == b"{}"


def test_a_checkpoint_lies_in_the_cache(web: Web, cache: Path) -> None:
    publish(web, REPO, NEEDED)
    assert hub_cache() == cache.resolve()
    assert (Hub(PLENTY).checkpoint(REPO) / "unet/config.json").resolve().is_relative_to(hub_cache())


def _fp16(name: str) -> str:
    """A file's name in the variant, as diffusers and transformers write it."""
    if name.endswith(".index.json"):
        return name.replace(".index.json", ".index.fp16.json")
    return (
        name.replace("-0000", ".fp16-0000", 1) if "-of-" in name else name.replace(".safetensors", ".fp16.safetensors")
    )


def test_of_a_variant_only_its_files_are_downloaded(web: Web) -> None:
    weights = [name for name in NEEDED if ".safetensors" in name]
    rest = {name: content for name, content in NEEDED.items() if name not in weights}
    fp16 = {_fp16(name): b"half" for name in weights}
    others = {name: content for name, content in NOT_NEEDED.items() if ".fp16." not in name}
    publish(web, REPO, fp16 | NEEDED | others | {"unet/diffusion_pytorch_model.fp16.bin": b""})
    assert _files(Hub(PLENTY).checkpoint(REPO, "fp16")) == set(rest | fp16)


def test_a_part_without_the_variant_is_downloaded_plain(web: Web) -> None:
    text = "text_encoder/model.safetensors"
    publish(web, REPO, NEEDED | {_fp16(text): b"half"})
    assert _files(Hub(PLENTY).checkpoint(REPO, "fp16")) == set(NEEDED) - {text} | {_fp16(text)}


@pytest.mark.parametrize("place", ["", "unet/"])
def test_a_unet_is_downloaded_alone(web: Web, place: str) -> None:
    wanted = {f"{place}config.json", f"{place}diffusion_pytorch_model.safetensors"}
    others = {"README.md", "vae/config.json", "vae/diffusion_pytorch_model.safetensors", "other.safetensors"}
    publish(web, REPO, dict.fromkeys(wanted | others, b"{}"))
    assert _files(Hub(PLENTY).unet(REPO)) == wanted
    assert downloaded(web, REPO) == wanted


def test_a_repository_without_a_unet_is_an_error(web: Web) -> None:
    publish(web, REPO, {"README.md": b"", "lora.safetensors": b""})
    with pytest.raises(HubError, match="has no UNet"):
        Hub(PLENTY).unet(REPO)


def test_only_what_is_needed_counts_against_the_limit(web: Web) -> None:
    publish(web, REPO, NEEDED | NOT_NEEDED)
    size = sum(len(content) for content in NEEDED.values())
    with pytest.raises(HubError, match=f"{size} bytes; expected at most"):
        Hub(size - 1).checkpoint(REPO)
    assert downloaded(web, REPO) == set()
    Hub(size).checkpoint(REPO)


def test_the_cache_serves_when_the_hub_cannot_be_reached(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(web, REPO, NEEDED | NOT_NEEDED)
    folder = Hub(PLENTY).checkpoint(REPO)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert Hub(PLENTY).checkpoint(REPO) == folder


def test_the_cache_serves_offline(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(web, REPO, NEEDED | NOT_NEEDED)
    folder = Hub(PLENTY).checkpoint(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Hub(PLENTY).checkpoint(REPO) == folder


def test_a_cache_that_another_program_filled_serves_offline(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cache / "models--owner--name" / "snapshots" / COMMIT
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / "unet" / "config.json").write_text("{}")
    (cache / "models--owner--name" / "refs").mkdir()
    (cache / "models--owner--name" / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Hub(PLENTY).checkpoint(REPO) == snapshot


@pytest.mark.parametrize("offline", [True, False])
def test_a_repository_that_is_nowhere_is_an_error(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(HubError, match="could not provide it"):
        Hub(PLENTY).checkpoint(REPO)


def _lora(limit: int = PLENTY) -> Path:
    found = Hub(limit).lora(REPO)
    assert isinstance(found, Path)
    return found


@pytest.mark.parametrize("name", ["any_name.safetensors", "my lora (v1) [x]!.safetensors", LORA])
def test_the_only_file_is_the_lora(web: Web, name: str) -> None:
    publish(web, REPO, {name: b"lora", "README.md": b"", "other/x.safetensors": b"", "x.bin": b""})
    assert _lora().read_bytes() == b"lora"
    assert downloaded(web, REPO) == {quote(name)}


def test_among_several_files_the_usual_name_is_the_lora(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(web, REPO, {"a.safetensors": b"", LORA: b"lora"})
    assert _lora().read_bytes() == b"lora"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _lora().read_bytes() == b"lora"


@pytest.mark.parametrize("files", [{"a.safetensors": b"", "b.safetensors": b""}, {"a.bin": b""}])
def test_no_file_is_guessed(web: Web, files: dict[str, bytes]) -> None:
    publish(web, REPO, files)
    with pytest.raises(HubError, match=r"expected pytorch_lora_weights\.safetensors or one other"):
        Hub(PLENTY).lora(REPO)


@pytest.mark.parametrize("name", ["青禅_ZEN.safetensors", "peñoles v1.safetensors"])
def test_a_name_of_another_alphabet_is_a_url(web: Web, name: str) -> None:
    publish(web, REPO, {name: b"lora"})
    assert Hub(PLENTY).lora(REPO) == web.url(f"/{REPO}/resolve/main/{quote(name)}")
    assert downloaded(web, REPO) == set()


def test_names_of_other_alphabets_are_no_part_of_a_checkpoint(web: Web) -> None:
    publish(web, REPO, NEEDED | {"tokenizer/说明.txt": b"", "说明.md": b""})
    assert _files(Hub(PLENTY).checkpoint(REPO)) == set(NEEDED)


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository_names_the_tokens(web: Web, status: int) -> None:
    web.answers[f"/api/models/{REPO}"] = reply(b'{"error": "gated"}', status)
    for ask in (Hub(PLENTY).lora, Hub(PLENTY).checkpoint):
        with pytest.raises(HubError, match=f"{status}: it is gated, private or missing; see LORIKEET_TOKENS"):
            ask(REPO)


def test_a_download_stops_in_the_middle_of_a_file(web: Web, cache: Path) -> None:
    size = 25 << 20  # the library asks after every ten
    publish(web, REPO, {LORA: bytes(size)})
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked >= 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Hub(size, check_cancelled=stop).lora(REPO)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == size]
    assert _lora(size).stat().st_size == size


def test_the_pickle_of_a_controlnet_is_downloaded_where_there_is_no_other_file(web: Web) -> None:
    needed = {"config.json": b"{}", "diffusion_pytorch_model.bin": b"0123"}
    publish(web, REPO, needed | {"diffusion_pytorch_model.fp16.bin": b"01", "model.bin": b"large" * 1000})
    assert _files(Hub(PLENTY).controlnet(REPO)) == downloaded(web, REPO) == set(needed)


def test_a_controlnet_with_safetensors_needs_no_pickle(web: Web) -> None:
    needed = {"controlnet/config.json": b"{}", "controlnet/diffusion_pytorch_model.safetensors": b"0123"}
    publish(web, REPO, needed | {"controlnet/diffusion_pytorch_model.bin": b"large" * 1000})
    assert _files(Hub(PLENTY).controlnet(REPO)) == downloaded(web, REPO) == set(needed)


def test_the_pickle_of_a_variant_comes_before_other_files(web: Web) -> None:
    """`s` also begins the word safetensors."""
    needed = {"config.json": b"{}", "diffusion_pytorch_model.s.bin": b"0123"}
    publish(web, REPO, needed | {"diffusion_pytorch_model.safetensors": b"large" * 1000})
    assert _files(Hub(PLENTY).controlnet(REPO, "s")) == downloaded(web, REPO) == set(needed)
