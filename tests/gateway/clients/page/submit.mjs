import { fal } from "@fal-ai/client";
const { request_id } = await fal.queue.submit("fal-ai/lora/image-to-image", {
  input: {
    model_name: "stabilityai/stable-diffusion-xl-base-1.0",
    prompt: "Photo of a european medieval 40 year old queen, silver hair, highly detailed face, detailed eyes, head shot, intricate crown, age spots, wrinkles"
  },
  webhookUrl: "https://optional.webhook.url/for/results",
});
