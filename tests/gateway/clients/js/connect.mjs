// A client that speaks to the gateway, in each of the ways that fal's configuration offers.
import { redirect } from "./redirect.mjs";

const ROUTES = {
  middleware: (gateway) => ({
    requestMiddleware: async (request) => ({ ...request, url: redirect(request.url, gateway) }),
  }),
  fetch: (gateway) => ({ fetch: (url, options) => fetch(redirect(String(url), gateway), options) }),
  proxy: (gateway) => ({ proxyUrl: { url: `${gateway}/api/fal/proxy`, when: "always" } }),
};

// `isBare`: the calls of serverless-client return the output itself, without a request id.
export async function connect({ client, gateway, key, route = "middleware" }) {
  const module = await import(client);
  const fal = module.fal ?? module;
  fal.config({ credentials: key, ...ROUTES[route](gateway) });
  return { fal, isBare: module.fal === undefined };
}
