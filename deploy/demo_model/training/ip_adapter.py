"""Training of the IP-Adapter on the trained UNet and image encoder."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from random import Random

import torch
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionModelWithProjection

from deploy.demo_model.paths import IP_ADAPTER_FILE, TRAINING
from deploy.demo_model.pipeline.adapter_pipelines import generate
from deploy.demo_model.pipeline.components import TEXT_WIDTH
from deploy.demo_model.pipeline.image_encoder import WIDTH, image_processor, prepare, save_image_encoder
from deploy.demo_model.pipeline.image_generator import ImageGenerator
from deploy.demo_model.pipeline.pictures import save_grid
from deploy.demo_model.training import data_parallel
from deploy.demo_model.training.denoiser import Denoiser
from deploy.demo_model.training.diffusion_loss import v_loss
from deploy.demo_model.training.image_encoder import trained_image_encoder
from deploy.demo_model.training.latents import tokens, training_latents
from deploy.demo_model.training.loop import TrainingSettings, device, train
from deploy.demo_model.training.state import resume
from deploy.demo_model.training.trained_networks import load_run, trained_denoiser, trained_vae
from deploy.demo_model.world.captions import caption
from deploy.demo_model.world.random_scenes import training_scenes
from deploy.demo_model.world.scene import Scene, draw

RUN = "ip-adapter"
TOKENS = 4  # per image prompt, as in the plain IP-Adapter
EMPTY_SHARE = 0.5  # of captions are empty, so that the image prompt must carry the content
NO_IMAGE_SHARE = 0.1  # of image prompts are zero, as classifier-free guidance needs
SHOWN = 8
_CHUNK = 64


class ImagePromptedDenoiser(Denoiser):
    """A frozen denoiser whose cross attentions also take an image prompt; only the adapter's weights are trainable."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.load_state_dict(denoiser.state_dict())
        self.requires_grad_(False)
        self.unet.set_attn_processor({name: self._processor(name) for name in self.unet.attn_processors})
        self.unet.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(WIDTH, TEXT_WIDTH, TOKENS)])
        self.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")

    def _processor(self, name: str) -> AttnProcessor | IPAdapterAttnProcessor:
        """The one for the attention at `name`; an image prompt is looked at as words are, to begin with."""
        attention = self.unet.get_submodule(name.removesuffix(".processor"))
        if not attention.is_cross_attention:
            return AttnProcessor()
        processor = IPAdapterAttnProcessor(attention.inner_dim, TEXT_WIDTH, num_tokens=(TOKENS,))
        processor.to_k_ip[0].load_state_dict(attention.to_k.state_dict())
        processor.to_v_ip[0].load_state_dict(attention.to_v.state_dict())
        return processor

    def image_prompted_loss(self, latents: torch.Tensor, ids: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """The mean square error of v for unscaled `latents`, tokens and the image encoder's `embeds` [n, WIDTH]."""
        states = self.text_encoder(ids).last_hidden_state

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            condition = {"image_embeds": [embeds[:, None]]}
            predicted: torch.Tensor = self.unet(noisy, times, states, added_cond_kwargs=condition).sample
            return predicted

        return v_loss(latents * self.scale, self.alphas_cumprod, predict)

    def adapter(self) -> dict[str, torch.Tensor]:
        """The adapter's tensors under the key names of published IP-Adapters; layer indices are 1, 3, 5 ..."""
        projection = self.unet.encoder_hid_proj.image_projection_layers[0]
        tensors = {
            f"image_proj.{name.replace('image_embeds', 'proj')}": tensor
            for name, tensor in projection.state_dict().items()
        }
        crossing = [one for one in self.unet.attn_processors.values() if isinstance(one, IPAdapterAttnProcessor)]
        for index, processor in enumerate(crossing):
            tensors[f"ip_adapter.{2 * index + 1}.to_k_ip.weight"] = processor.to_k_ip[0].weight
            tensors[f"ip_adapter.{2 * index + 1}.to_v_ip.weight"] = processor.to_v_ip[0].weight
        return tensors


def train_ip_adapter(minutes: float, peak_rate: float, scene_count: int) -> None:
    """Train the run `ip-adapter` up to `minutes` in all, on the first `scene_count` training scenes."""
    vae = trained_vae().to(device()).requires_grad_(False)
    dataset = training_latents(vae, scene_count)
    image_encoder = trained_image_encoder().to(device()).requires_grad_(False)
    embeds = _embeds(image_encoder, dataset.scenes)
    prompted = ImagePromptedDenoiser(trained_denoiser()).to(device())
    prompted.unet.to(memory_format=torch.channels_last)
    vae.register_to_config(scaling_factor=float(prompted.scale))
    state = resume(RUN, prompted)
    torch.manual_seed(data_parallel.seed_after(state.steps))
    random = Random(data_parallel.seed_after(state.steps))

    def loss_of(count: int) -> torch.Tensor:
        chosen = [random.randrange(len(dataset.scenes)) for _ in range(count)]
        texts = ["" if random.random() < EMPTY_SHARE else caption(dataset.scenes[index], random) for index in chosen]
        shown = torch.tensor([[random.random() >= NO_IMAGE_SHARE] for _ in chosen])
        latents = dataset.latents[chosen].float().to(device())
        prompts = (embeds[chosen] * shown).to(device())
        loss: torch.Tensor = prompted.image_prompted_loss(latents, tokens(texts).to(device()), prompts)
        return loss

    def preview() -> None:
        scenes = list(islice(training_scenes(-1), SHOWN))
        generator = ImageGenerator(vae, state.average.unet, state.average.text_encoder)
        pipeline = generator.pipeline(image_encoder=image_encoder, feature_extractor=image_processor())
        pictures = list(map(draw, scenes))
        generated = [
            generate(pipeline, [""], seed=index, ip_adapter_image=[one])[0] for index, one in enumerate(pictures)
        ]
        save_grid([*pictures, *generated], SHOWN, TRAINING / f"{RUN}.png")

    train(state, TrainingSettings(minutes, batch=16, peak_rate=peak_rate, decay=0.995), loss_of, preview)


def _embeds(image_encoder: CLIPVisionModelWithProjection, scenes: list[Scene]) -> torch.Tensor:
    """The image embeddings [n, WIDTH] of the scenes' pictures, on the CPU."""
    parts = []
    for start in range(0, len(scenes), _CHUNK):
        pictures: list[Image.Image] = [draw(scene) for scene in scenes[start : start + _CHUNK]]
        with torch.no_grad():
            parts.append(image_encoder(prepare(pictures).to(device())).image_embeds.cpu())
    return torch.cat(parts)


def write_ip_adapter(folder: Path) -> None:
    """Write the averaged IP-Adapter of the run `ip-adapter` and its image encoder to `folder`, in float16."""
    prompted = ImagePromptedDenoiser(trained_denoiser())
    load_run(RUN, prompted)
    save_image_encoder(trained_image_encoder(), folder / "image_encoder")
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in prompted.adapter().items()}
    save_file(tensors, folder / IP_ADAPTER_FILE, {"format": "pt"})
