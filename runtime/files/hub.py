"""The Hugging Face Hub, through `huggingface_hub` and its own cache (which other programs on the machine share)."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
# What a diffusers-format checkpoint needs here: configurations, tokenizers, and safetensors without a variant.
_FOLDER_PATTERNS = ["model_index.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"] + [
    f"{part}/{name}" for part in _PARTS for name in ("config.json", "*.safetensors", "*.safetensors.index.json")
]
_VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*", "*.ema.*", "*/openvino_model*", "*.onnx"]
_LORA_NAME = "pytorch_lora_weights.safetensors"


class HubError(Exception):
    """The Hub has no such repository or file, or does not answer; the message is fit for the client."""


def hub_cache() -> Path:
    """The folder of the Hub's cache, resolved (HF_HOME and HF_HUB_CACHE move it)."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).resolve()


def hub_folder(repo_id: str, limit: int) -> Path:
    """The snapshot folder of a checkpoint's repository; without the network, the cached one.

    Raises HubError; also when what is needed of it has more than `limit` bytes.
    """
    return _snapshot(repo_id, limit, _checkpoint_files)


def hub_lora(repo_id: str, limit: int) -> Path:
    """The LoRA file of a repository: the one with the usual name, or the only `.safetensors`. Raises HubError."""
    folder = _snapshot(repo_id, limit, lambda names: [_lora_file(names)])
    return (folder / _lora_file([path.name for path in folder.glob("*.safetensors")])).resolve()


def _checkpoint_files(names: list[str]) -> list[str]:
    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatch(name, pattern) for pattern in patterns)

    return [name for name in names if matches(name, _FOLDER_PATTERNS) and not matches(name, _VARIANTS)]


def _lora_file(names: list[str]) -> str:
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if _LORA_NAME in found:
        return _LORA_NAME
    if len(found) != 1:
        raise HubError(f"which .safetensors file? The repository holds {', '.join(found[:8]) or 'none'}")
    return found[0]


def _snapshot(repo_id: str, limit: int, choose: Callable[[list[str]], list[str]]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        sizes = _listing(repo_id)
        if sizes is None:
            return _cached(repo_id)
        names = choose(list(sizes))
        if (total := sum(sizes[name] for name in names)) > limit:
            raise HubError(f"{total} bytes are needed of it, more than {limit}")
        return Path(snapshot_download(repo_id, allow_patterns=names))
    except HubError:
        raise
    except Exception as error:  # its errors have no common base: HTTP, cache, validation, file system
        first = str(error).strip().split("\n")[0][:200]
        raise HubError(f"the Hugging Face Hub could not provide it ({type(error).__name__}: {first})") from error


def _cached(repo_id: str) -> Path:
    """The snapshot that the cache holds, though it may lack files that were never chosen."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, local_files_only=True))
    except LocalEntryNotFoundError as error:
        if incomplete := getattr(error, "snapshot_path", None):
            return Path(incomplete)
        raise


def _listing(repo_id: str) -> dict[str, int] | None:
    """file -> bytes of a repository; None when the Hub cannot be reached, so that only the cache can serve."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        siblings = HfApi().model_info(repo_id, files_metadata=True).siblings or []
    except (HfHubHTTPError, ValueError):
        raise
    except Exception:  # what its HTTP library raises, which is another one from version to version
        return None
    return {item.rfilename: item.size or 0 for item in siblings}
