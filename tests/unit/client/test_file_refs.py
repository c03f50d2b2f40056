"""File references of a request: all are found and mapped."""

from lorikeet.schema import file_refs, map_file_refs
from tests.unit.client.schema_requests import parse


def test_file_refs_are_all_found_and_mapped() -> None:
    controlnet = {"path": "c", "image_url": "ci", "mask_url": "cm", "config_url": "cc"}
    adapter = {
        "path": "i",
        "ip_adapter_image_url": ["i0", "i1"],
        "ip_adapter_mask_url": "im",
        "insight_face_model_path": "if",
    }
    request = parse(
        unet_name="u",
        image_url="img",
        loras=[{"path": "l0"}, {"path": "l1"}],
        embeddings=[{"path": "e"}],
        controlnets=[controlnet],
        ip_adapter=[adapter, {"path": "j", "ip_adapter_image_url": "one"}],
        image_encoder_path="ie",
        ic_light_model_url="il",
        ic_light_model_background_image_url="ib",
        ic_light_image_url="ii",
    )
    found = dict(file_refs(request))
    assert found == {
        "model_name": "m",
        "unet_name": "u",
        "image_url": "img",
        "image_encoder_path": "ie",
        "ic_light_model_url": "il",
        "ic_light_model_background_image_url": "ib",
        "ic_light_image_url": "ii",
        "loras[0].path": "l0",
        "loras[1].path": "l1",
        "embeddings[0].path": "e",
        "controlnets[0].path": "c",
        "controlnets[0].image_url": "ci",
        "controlnets[0].mask_url": "cm",
        "controlnets[0].config_url": "cc",
        "ip_adapter[0].path": "i",
        "ip_adapter[0].ip_adapter_image_url[0]": "i0",
        "ip_adapter[0].ip_adapter_image_url[1]": "i1",
        "ip_adapter[0].ip_adapter_mask_url": "im",
        "ip_adapter[0].insight_face_model_path": "if",
        "ip_adapter[1].path": "j",
        "ip_adapter[1].ip_adapter_image_url": "one",
    }
    mapped = map_file_refs(request, lambda location, value: f"{location}={value}")
    assert dict(file_refs(mapped)) == {location: f"{location}={value}" for location, value in found.items()}
    assert dict(file_refs(request)) == found, "the original is left alone"
    assert mapped.model_fields_set == request.model_fields_set
