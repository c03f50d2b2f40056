import { fal } from "@fal-ai/client";
fal.config({
  credentials: "YOUR_FAL_KEY"
});
