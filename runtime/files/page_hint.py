"""How to reach a file whose page was given in place of the file: the Hub's, GitHub's and Civitai's pages."""

from __future__ import annotations

from lorikeet.net.url import Url

_GITHUB = "github.com"
_HUB = "huggingface.co"
_CIVITAI = ("civitai.com", "civitai.green", "civitai.red")


def page_hint(url: Url) -> str | None:
    """What to do, for the address of a page that shows a file, a folder or a model; None for any other address."""
    parts = url.path.split("/")[1:]
    if "blob" in parts[1:]:  # OWNER/NAME/blob/REVISION/FILE, on the Hub's mirrors too
        return f"a /blob/ page: use /{'raw' if url.host == _GITHUB else 'resolve'}/ in place of /blob/"
    if url.host.removeprefix("www.") in _CIVITAI and parts[0] == "models":
        return f"a model page: use its download link, https://{url.host}/api/download/models/VERSION"
    if url.host == _HUB and len(parts) == 2:
        return f"the page of a repository: write its Hub id, {parts[0]}/{parts[1]}"
    if url.host in (_HUB, _GITHUB) and "tree" in parts[1:]:
        return "the page of a folder: use the download link of a file"
    return None
