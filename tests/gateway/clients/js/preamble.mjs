// Loaded before a sample of the API page: points fal's addresses at the gateway, and the sample's request id at a
// request that exists. The sample itself is unchanged. Each answer is a line of standard error.
import { redirect } from "./redirect.mjs";

const { GATEWAY, REQUEST_ID } = process.env;
const SAMPLE_ID = "764cabcf-b745-4b3e-ae38-1200304cf45b";
const original = globalThis.fetch;

globalThis.fetch = async (url, options) => {
  const target = redirect(String(url).replace(SAMPLE_ID, REQUEST_ID), GATEWAY);
  const response = await original(target, options);
  console.error(JSON.stringify([options.method, target.slice(GATEWAY.length), response.status]));
  return response;
};
