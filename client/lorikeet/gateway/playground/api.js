/** The gateway's HTTP interface: fal's queue and storage protocols. */

import { ApiError } from "./api_error.js";
import { events } from "./event_stream.js";

const POLL_MS = 500;
const RETRY_MS = 2000;

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export class Api {
  /** `endpoint`: the application's full id. `key`: a function that returns the API key, or "". */
  constructor(endpoint, key) {
    this.endpoint = endpoint;
    this.application = endpoint.split("/").slice(0, 2).join("/");
    this.key = key;
  }

  /** Put a request into the queue. Returns its id. */
  async submit(input) {
    const answer = await this.#call("POST", `queue/${this.endpoint}`, { json: input });
    return (await answer.json()).request_id;
  }

  /**
   * Yields the statuses of a request, the last one with "COMPLETED". A lost connection is no error, because the queue
   * survives a restart of the gateway: the status is then "UNREACHABLE", and the next one is asked for.
   */
  async *follow(id) {
    for (let mayStream = true; ; ) {
      let wait = POLL_MS;
      try {
        for await (const status of mayStream ? this.#stream(id) : this.#poll(id)) {
          yield status;
          if (status.status === "COMPLETED") return;
        }
      } catch (error) {
        if (error instanceof ApiError && error.status < 500) throw error;
        yield { status: "UNREACHABLE" };
        wait = RETRY_MS;
      }
      mayStream = false; // something between here and the gateway may not pass streams on
      await pause(wait);
    }
  }

  /** The output of a completed request. Throws the error that ended it. A lost connection is tried again. */
  async result(id) {
    for (;;) {
      try {
        return await (await this.#call("GET", this.#of(id))).json();
      } catch (error) {
        if (error instanceof ApiError) throw error;
        await pause(RETRY_MS);
      }
    }
  }

  async cancel(id) {
    await this.#call("PUT", `${this.#of(id)}/cancel`);
  }

  /** Store a file. Returns its URL. */
  async upload(file) {
    const description = { content_type: file.type || "application/octet-stream", file_name: file.name || "picture" };
    const initiate = "rest/storage/upload/initiate?storage_type=fal-cdn-v3";
    const { upload_url, file_url } = await (await this.#call("POST", initiate, { json: description })).json();
    const stored = await fetch(upload_url, {
      method: "PUT",
      headers: { "Content-Type": description.content_type },
      body: file,
    });
    if (!stored.ok) throw await ApiError.of(stored);
    return file_url;
  }

  async *#stream(id) {
    yield* events(await this.#call("GET", `${this.#of(id)}/status/stream?logs=1`, { accept: "text/event-stream" }));
  }

  async *#poll(id) {
    yield (await this.#call("GET", `${this.#of(id)}/status?logs=1`)).json();
  }

  #of(id) {
    return `queue/${this.application}/requests/${encodeURIComponent(id)}`;
  }

  async #call(method, path, { json, accept = "application/json" } = {}) {
    const headers = { Accept: accept };
    if (json !== undefined) headers["Content-Type"] = "application/json";
    if (this.key()) headers.Authorization = `Key ${this.key()}`;
    const response = await fetch(path, { method, headers, body: json && JSON.stringify(json) });
    if (!response.ok) throw await ApiError.of(response);
    return response;
  }
}
