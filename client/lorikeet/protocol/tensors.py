"""Names of the public Triton models and of their tensors."""

IMAGE_MODEL = "lora_image_to_image"
JOBS_MODEL = "jobs"

# Inputs. The model `jobs` has REQUEST alone.
REQUEST = "REQUEST"  # BYTES [1]: the input as JSON
FILES = "FILES"  # BYTES [n], optional: a path or URL field refers to entry i as "tensor:<i>"
IMAGE = "IMAGE"  # UINT8 [bytes], optional: one encoded image, in place of image_url

# Outputs. The model `jobs` has RESPONSE alone.
RESPONSE = "RESPONSE"  # BYTES [1]: the output as JSON
IMAGES = "IMAGES"  # BYTES [N]: the encoded images
DEBUG_LATENTS = "DEBUG_LATENTS"  # FP32 [N, 4, h, w]; N is 0 unless requested
DEBUG_PER_PASS_LATENTS = "DEBUG_PER_PASS_LATENTS"  # FP32 [steps, N, 4, h, w]; steps is 0 unless requested
