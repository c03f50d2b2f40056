"""A scripted Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
from urllib.parse import quote

from tests.unit.runtime.web import Web, reply

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def publish(web: Web, repo_id: str, files: dict[str, bytes]) -> None:
    """Script the Hub's answers for a repository with these files."""
    blobs = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
    siblings = [{"rfilename": name, "size": len(files[name]), "blobId": blob} for name, blob in blobs.items()]
    tree = [{"type": "file", "path": name, "size": len(files[name]), "oid": blob} for name, blob in blobs.items()]
    info = {"id": repo_id, "sha": COMMIT, "siblings": siblings}
    for path in ("", "/revision/main", f"/revision/{COMMIT}"):
        web.answers[f"/api/models/{repo_id}{path}"] = reply(json.dumps(info).encode())
    web.answers[f"/api/models/{repo_id}/tree/{COMMIT}"] = reply(json.dumps(tree).encode())
    for name, content in files.items():
        headers = {"ETag": f'"{blobs[name]}"', "X-Repo-Commit": COMMIT}
        web.answers[f"/{repo_id}/resolve/{COMMIT}/{quote(name)}"] = reply(content, headers=headers)


def downloaded(web: Web, repo_id: str) -> set[str]:
    """The names of the requested files, percent-encoded."""
    start = f"/{repo_id}/resolve/{COMMIT}/"
    return {path.removeprefix(start) for path, _ in web.seen if path.startswith(start)}
