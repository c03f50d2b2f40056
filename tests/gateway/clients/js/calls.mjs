// The calls of fal's JavaScript clients. Each takes the client and its arguments, and returns what a user would see.
const ENDPOINT = "fal-ai/lora/image-to-image";
const POLL_MS = 50;

const messages = (status) => (status.logs ?? []).map((line) => line.message);
const seen = (status) => ({
  status: status.status,
  position: status.queue_position,
  messages: messages(status),
  error: status.error,
  error_type: status.error_type,
  metrics: status.metrics,
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const unwrapped = (result, isBare) =>
  isBare ? { output: result } : { output: result.data, request_id: result.requestId };

export async function run({ fal, isBare }, { input, options }) {
  return unwrapped(await fal.run(ENDPOINT, { input, ...options }), isBare);
}

export async function subscribe({ fal, isBare }, { input, options }) {
  const updates = [];
  let requestId;
  const onQueueUpdate = (status) => {
    requestId = status.request_id;
    updates.push(seen(status));
  };
  const all = { input, logs: true, pollInterval: POLL_MS, onQueueUpdate, ...options };
  try {
    return { ...unwrapped(await fal.subscribe(ENDPOINT, all), isBare), updates };
  } catch (error) {
    error.requestId ??= requestId; // the error of the client's own timeout does not name the request
    throw error;
  }
}

export async function stream({ fal }, { input, options }) {
  return drained(await fal.stream(ENDPOINT, { input, ...options }));
}

export async function streamStatus({ fal }, { input }) {
  const { request_id: requestId } = await fal.queue.submit(ENDPOINT, { input });
  const { events, last } = await drained(await fal.queue.streamStatus(ENDPOINT, { requestId, logs: true }));
  return { events: events.map(seen), last: seen(last) };
}

export async function submit({ fal }, { input, options }) {
  return fal.queue.submit(ENDPOINT, { input, ...options });
}

export async function status({ fal }, { request_id: requestId }) {
  return seen(await fal.queue.status(ENDPOINT, { requestId, logs: true }));
}

export async function result({ fal, isBare }, { request_id: requestId }) {
  return unwrapped(await fal.queue.result(ENDPOINT, { requestId }), isBare);
}

// Submit, ask for the status until the request has ended, fetch the result.
export async function queue(connected, { input, options }) {
  const submitted = await submit(connected, { input, options });
  const last = seen(await reached(connected, submitted.request_id, "COMPLETED"));
  return { submitted, last, ...(await result(connected, submitted)) };
}

// Cancel a request as soon as it has the status `when`.
export async function cancel(connected, { input, when }) {
  const { request_id: requestId } = await submit(connected, { input });
  await reached(connected, requestId, when);
  await connected.fal.queue.cancel(ENDPOINT, { requestId });
  return { request_id: requestId, last: seen(await reached(connected, requestId, "COMPLETED")) };
}

export async function upload({ fal }, { content, size, type, name }) {
  return { url: await fal.storage.upload(new File([bytesOf(content, size)], name, { type })) };
}

// A Blob within the input, which the client uploads by itself.
export async function runBlob(connected, { input, content, type }) {
  return run(connected, { input: { ...input, image_url: new Blob([bytesOf(content)], { type }) } });
}

// Base64 `content`, or `size` bytes that count from 0 to 250 again and again: parts of an upload differ.
function bytesOf(content, size) {
  const counted = Uint8Array.from({ length: 251 }, (_, place) => place);
  return content === undefined ? Buffer.alloc(size, counted) : Buffer.from(content, "base64");
}

async function reached({ fal }, requestId, state) {
  for (;;) {
    const found = await fal.queue.status(ENDPOINT, { requestId, logs: true });
    if (found.status === state || found.status === "COMPLETED") return found;
    await sleep(POLL_MS);
  }
}

async function drained(stream) {
  const events = [];
  stream.on("data", (event) => events.push(event));
  return { events, last: await stream.done() };
}
