"""Downloads from the Hugging Face Hub with `huggingface_hub`, into its cache, which other programs share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lorikeet.net.fetch import Fetcher, origin
from lorikeet.net.url import Url, parse_url
from lorikeet.protocol.shorten import listed, shorten

_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")
# The files of a diffusers-format checkpoint besides those of its components.
_FOLDER_PATTERNS = ["model_index.json", "scheduler/*.json", "tokenizer/*", "tokenizer_2/*"]
_STEM = r"(diffusion_pytorch_model|model)"
_PICKLED = "diffusion_pytorch_model"
_SHARD = r"(-\d+-of-\d+)"
_LORA_NAME = "pytorch_lora_weights.safetensors"
_EMBEDDING_NAMES = ("learned_embeds.safetensors", "learned_embeds.bin")  # as diffusers' training script saves it
_GATED = "it is gated, private or missing; see LORIKEET_TOKENS"
HostTokens = Mapping[str, str]  # by host
CheckCancelled = Callable[[], None]


class HubError(Exception):
    """The Hub does not answer, or has no such repository or file; the message is fit for the client."""


def hub_cache() -> Path:
    """The folder of the Hub's cache, resolved (HF_HOME and HF_HUB_CACHE move it)."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).resolve()


def _endpoint() -> Url:
    """The address of the Hub (HF_ENDPOINT moves it), without a user name and password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return parse_url(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")


def _never() -> None:
    """The default of `check_cancelled`: raises nothing."""


@dataclass(frozen=True)
class Hub:
    """The Hub for one request. A download has at most `limit` bytes; `check_cancelled` is called during it.

    Every method raises HubError, and what `check_cancelled` raises. Without a network they return what is cached.
    """

    limit: int
    tokens: HostTokens = field(default_factory=dict)
    check_cancelled: CheckCancelled = _never

    def checkpoint(self, repo_id: str, variant: str | None = None) -> Path:
        """The snapshot folder of a checkpoint. A component without that `variant` has plain files."""
        return self._snapshot(repo_id, lambda names: _checkpoint_files(names, variant))

    def unet(self, repo_id: str, variant: str | None = None) -> Path:
        """The snapshot folder of a repository with a UNet, in the folder `unet` or at the top."""
        return self._snapshot(repo_id, lambda names: _network_files(names, "unet", "UNet", variant))

    def controlnet(self, repo_id: str, variant: str | None = None) -> Path:
        """The snapshot folder of a repository with a ControlNet, in the folder `controlnet` or at the top."""
        return self._snapshot(repo_id, lambda names: _controlnet_files(names, variant))

    def files(self, repo_id: str, choose: Callable[[list[str]], list[str]]) -> Path:
        """The snapshot folder with the files that `choose` takes of all names; it may raise HubError."""
        return self._snapshot(repo_id, choose)

    def lora(self, repo_id: str) -> Path | str:
        """The LoRA file of a repository: `pytorch_lora_weights.safetensors`, or the only `.safetensors` at the top."""
        return self._file(repo_id, partial(_file_name, (_LORA_NAME,)))

    def embedding(self, repo_id: str) -> Path | str:
        """The textual inversion of a repository: `learned_embeds.safetensors`, `learned_embeds.bin`, or the only
        `.safetensors` at the top."""
        return self._file(repo_id, partial(_file_name, _EMBEDDING_NAMES))

    def _file(self, repo_id: str, choose_name: Callable[[Iterable[str]], str]) -> Path | str:
        """One file of a repository.

        A file whose name is not ASCII is a URL for `fetcher`: the library cannot write it where Triton's Python has an
        ASCII locale.
        """
        found: list[str] = []

        def choose(names: list[str]) -> list[str]:
            found.append(choose_name(names))
            return [name for name in found if name.isascii()]

        folder = self._snapshot(repo_id, choose)
        if found and not found[0].isascii():
            from huggingface_hub import hf_hub_url

            return hf_hub_url(repo_id, found[0])
        return (folder / choose_name(path.name for path in folder.glob("*"))).resolve()

    def fetcher(self, allow: Iterable[str]) -> Fetcher:
        """Fetches files of the Hub with the token that the library would send. `allow`: see `Fetcher`."""
        endpoint = _endpoint()
        token = _token(self.tokens) or _own_token()
        host_tokens = {origin(endpoint): token} if token else {}
        return Fetcher((*allow, endpoint.netloc), host_tokens, denied=_GATED, refused=_GATED)

    def _snapshot(self, repo_id: str, choose: Callable[[list[str]], list[str]]) -> Path:
        from huggingface_hub import snapshot_download

        token = _token(self.tokens)
        try:
            sizes = _listing(repo_id, token)
            if sizes is None:
                return _cached(repo_id)
            names = choose(list(sizes))
            if (total := sum(sizes[name] for name in names)) > self.limit:
                raise HubError(f"its files have {total} bytes; expected at most {self.limit}")
            return Path(
                snapshot_download(
                    repo_id,
                    allow_patterns=[escape(name) for name in names],
                    token=token,
                    tqdm_class=_checking_bar(self.check_cancelled),
                )
            )
        except HubError:
            raise
        except Exception as error:  # the library has no base class for its HTTP, cache, validation and file errors
            self.check_cancelled()  # a cancelled download ends with an error too
            raise HubError(f"the Hugging Face Hub could not provide it ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{status}: {_GATED}"
    first = shorten(str(error).strip().split("\n")[0])
    return f"{type(error).__name__}: {first}"


def _checkpoint_files(names: list[str], variant: str | None) -> list[str]:
    # No component has a name of another alphabet, which the library could not write in an ASCII locale.
    names = [name for name in names if name.isascii()]
    rest = [name for name in names if any(fnmatch(name, pattern) for pattern in _FOLDER_PATTERNS)]
    return rest + [file for part in _COMPONENTS for file in _part_files(names, f"{part}/", variant)]


def _network_files(
    names: list[str], folder: str, what: str, variant: str | None, *, with_pickles: bool = False
) -> list[str]:
    """The files of the only network that a request needs of a repository: in the folder, or at the top."""
    place = f"{folder}/" if f"{folder}/config.json" in names else ""
    files = _part_files(names, place, variant, with_pickles=with_pickles)
    if not files:
        raise HubError(
            f"the repository has no {what}: expected {folder}/config.json, or config.json at its top, with weights; "
            "name a single file by its URL"
        )
    return files


def _controlnet_files(names: list[str], variant: str | None) -> list[str]:
    """Many repositories of ControlNets have no .safetensors."""
    return _network_files(names, "controlnet", "ControlNet", variant, with_pickles=True)


def _part_files(names: list[str], place: str, variant: str | None, *, with_pickles: bool = False) -> list[str]:
    """The configuration and weights of the component in folder `place`: those of the variant, or the plain ones.

    Of each, `.bin` files only `with_pickles`, where there is no .safetensors.
    """
    wanted = [rf"{_STEM}({_SHARD}?\.safetensors|\.safetensors\.index\.json)", rf"{_PICKLED}\.bin"]
    if variant:
        of = re.escape(f".{variant}")
        own = rf"{_STEM}({of}{_SHARD}?|{_SHARD}{of})\.safetensors|{_STEM}\.safetensors\.index{of}\.json"
        wanted = [own, rf"{_PICKLED}{of}\.bin", *wanted]
    if not with_pickles:
        wanted = [pattern for pattern in wanted if not pattern.endswith(".bin")]
    inner = [name.removeprefix(place) for name in names if name.startswith(place)]
    found = ([name for name in inner if re.fullmatch(pattern, name)] for pattern in wanted)
    weights: list[str] = next((files for files in found if files), [])
    return [place + name for name in inner if name == "config.json" or name in weights]


def _file_name(usual: Sequence[str], names: Iterable[str]) -> str:
    """The first of the usual names, or the only `.safetensors` at the top."""
    at_top = sorted(name for name in names if "/" not in name)
    if known := next((name for name in usual if name in at_top), None):
        return known
    found = [name for name in at_top if name.endswith(".safetensors")]
    if len(found) != 1:
        raise HubError(
            f"expected {usual[0]} or one other .safetensors file; the repository has {listed(found) or 'none'}"
        )
    return found[0]


def _token(tokens: HostTokens) -> str | None:
    """The configured token of the Hub; None: the library uses its own (HF_TOKEN, or that of `hf auth login`)."""
    return tokens.get(origin(_endpoint()))


def _own_token() -> str | None:
    """The library's own token, if it may send one. Raises HubError when it cannot renew a token."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    try:
        return get_token()
    except Exception as error:  # the library has no base class for its errors
        raise HubError(f"the Hugging Face Hub renews no token ({_reason(error)})") from error


def _checking_bar(check_cancelled: CheckCancelled) -> Any:
    """A class of progress bars that show nothing: a download calls nothing else from which it can be cancelled."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class CheckingBar(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            check_cancelled()
            return super().update(n)  # type: ignore[no-any-return]

    return CheckingBar


def _cached(repo_id: str) -> Path:
    """The cached snapshot. It may lack files that no request needed so far."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, local_files_only=True))
    except LocalEntryNotFoundError as error:
        if incomplete := getattr(error, "snapshot_path", None):
            return Path(incomplete)
        raise


def _listing(repo_id: str, token: str | None) -> dict[str, int] | None:
    """File name -> bytes; None when the Hub cannot be reached."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        siblings = HfApi(token=token).model_info(repo_id, files_metadata=True).siblings or []
    except (HfHubHTTPError, ValueError):
        raise
    except Exception:  # its HTTP library differs from version to version
        return None
    return {item.rfilename: item.size or 0 for item in siblings}
