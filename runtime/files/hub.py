"""The Hugging Face Hub, through `huggingface_hub` and its own cache (which other programs on the machine share)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
# What a diffusers-format checkpoint needs here besides the weights of its parts.
_FOLDER_PATTERNS = ["model_index.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"]
_STEM = r"(diffusion_pytorch_model|model)"
_SHARD = r"(-\d+-of-\d+)"
_LORA_NAME = "pytorch_lora_weights.safetensors"
Tokens = Mapping[str, str]
Stop = Callable[[], None]


class HubError(Exception):
    """The Hub has no such repository or file, or does not answer; the message is fit for the client."""


def hub_cache() -> Path:
    """The folder of the Hub's cache, resolved (HF_HOME and HF_HUB_CACHE move it)."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).resolve()


def _never() -> None:
    """Do not stop."""


@dataclass(frozen=True)
class Hub:
    """The Hub for one request: downloads of at most `limit` bytes, with the `tokens` (by host). `stop` is asked while
    files come, and may raise. Every method raises HubError; without the network, the cache serves."""

    limit: int
    tokens: Tokens = field(default_factory=dict)
    stop: Stop = _never

    def checkpoint(self, repo_id: str, variant: str | None = None) -> Path:
        """The snapshot folder of a checkpoint; a part without files of the `variant` gives its plain ones."""
        return self._snapshot(repo_id, lambda names: _checkpoint_files(names, variant))

    def unet(self, repo_id: str, variant: str | None = None) -> Path:
        """The snapshot folder of a repository that holds a UNet, in its folder `unet` or by itself."""
        return self._snapshot(repo_id, lambda names: _unet_files(names, variant))

    def lora(self, repo_id: str) -> Path:
        """The LoRA file of a repository: the one with the usual name, or the only `.safetensors`."""
        folder = self._snapshot(repo_id, lambda names: [_lora_file(names)])
        return (folder / _lora_file([path.name for path in folder.glob("*.safetensors")])).resolve()

    def _snapshot(self, repo_id: str, choose: Callable[[list[str]], list[str]]) -> Path:
        from huggingface_hub import snapshot_download

        token = _token(self.tokens)
        try:
            sizes = _listing(repo_id, token)
            if sizes is None:
                return _cached(repo_id)
            names = choose(list(sizes))
            if (total := sum(sizes[name] for name in names)) > self.limit:
                raise HubError(f"{total} bytes are needed of it, more than {self.limit}")
            return Path(snapshot_download(repo_id, allow_patterns=names, token=token, tqdm_class=_asking(self.stop)))
        except HubError:
            raise
        except Exception as error:  # its errors have no common base: HTTP, cache, validation, file system
            self.stop()  # it was this that ended the download
            first = str(error).strip().split("\n")[0][:200]
            raise HubError(f"the Hugging Face Hub could not provide it ({type(error).__name__}: {first})") from error


def _checkpoint_files(names: list[str], variant: str | None) -> list[str]:
    rest = [name for name in names if any(fnmatch(name, pattern) for pattern in _FOLDER_PATTERNS)]
    return rest + [file for part in _PARTS for file in _part_files(names, f"{part}/", variant)]


def _unet_files(names: list[str], variant: str | None) -> list[str]:
    files = _part_files(names, "unet/" if "unet/config.json" in names else "", variant)
    if not files:
        raise HubError("the repository holds no UNet")
    return files


def _part_files(names: list[str], place: str, variant: str | None) -> list[str]:
    """One part's configuration and weights: those of the variant where there are such, else the plain ones."""
    plain = rf"{_STEM}({_SHARD}?\.safetensors|\.safetensors\.index\.json)"
    wanted = [plain]
    if variant:
        of = re.escape(f".{variant}")
        wanted = [rf"{_STEM}({of}{_SHARD}?|{_SHARD}{of})\.safetensors|{_STEM}\.safetensors\.index{of}\.json", plain]
    inner = [name.removeprefix(place) for name in names if name.startswith(place)]
    found = ([name for name in inner if re.fullmatch(pattern, name)] for pattern in wanted)
    weights: list[str] = next((files for files in found if files), [])
    return [place + name for name in inner if name == "config.json" or name in weights]


def _lora_file(names: list[str]) -> str:
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if _LORA_NAME in found:
        return _LORA_NAME
    if len(found) != 1:
        raise HubError(f"which .safetensors file? The repository holds {', '.join(found[:8]) or 'none'}")
    return found[0]


def _token(tokens: Tokens) -> str | None:
    """The token of the Hub's own host; None leaves it to the Hub's library."""
    from huggingface_hub import constants

    endpoint = urlsplit(constants.ENDPOINT)
    return tokens.get(endpoint.netloc) if endpoint.scheme == "https" else None


def _asking(stop: Stop) -> Any:
    """A progress bar's class that shows nothing and asks whether to stop: the one thing that a download calls."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Asking(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            stop()
            return super().update(n)  # type: ignore[no-any-return]

    return Asking


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


def _listing(repo_id: str, token: str | None) -> dict[str, int] | None:
    """file -> bytes of a repository; None when the Hub cannot be reached, so that only the cache can serve."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        siblings = HfApi(token=token).model_info(repo_id, files_metadata=True).siblings or []
    except (HfHubHTTPError, ValueError):
        raise
    except Exception:  # what its HTTP library raises, which is another one from version to version
        return None
    return {item.rfilename: item.size or 0 for item in siblings}
