// The addresses of fal as addresses of a gateway: specification 1.2.
const PARTS = {
  "queue.fal.run": "/queue",
  "fal.run": "/run",
  "rest.fal.ai": "/rest",
  "rest.alpha.fal.ai": "/rest",
};

export function redirect(url, gateway) {
  const { host, pathname, search } = new URL(url);
  return host in PARTS ? gateway + PARTS[host] + pathname + search : url;
}
