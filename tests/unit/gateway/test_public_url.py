from pathlib import Path

from tests.unit.gateway.served import serve


def test_returned_addresses_begin_with_the_public_url(tmp_path: Path) -> None:
    with serve(tmp_path, public_url="https://pictures.example/fal") as served:
        addresses = served.initiate(content_type="image/png", file_name="a.png")
        token = served.client.post("/rest/storage/auth/token", json={}, headers=served.auth).json()
    assert addresses["upload_url"].startswith("https://pictures.example/fal/cdn/uploads/")
    assert addresses["file_url"].startswith("https://pictures.example/fal/cdn/files/")
    assert token["base_url"] == "https://pictures.example/fal/cdn"
