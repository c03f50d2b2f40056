// The call of Vercel's AI SDK: an image model of @ai-sdk/fal.
import { createFal } from "@ai-sdk/fal";
import { generateImage } from "ai";

export async function run({ gateway, key, input }) {
  const { prompt, seed, ...fal } = input;
  const model = createFal({ apiKey: key, baseURL: `${gateway}/run` }).image("fal-ai/lora/image-to-image");
  const { images, providerMetadata } = await generateImage({
    model,
    prompt,
    seed,
    providerOptions: { fal },
    maxRetries: 0,
  });
  return { images: images.map((image) => image.base64), metadata: providerMetadata.fal };
}
