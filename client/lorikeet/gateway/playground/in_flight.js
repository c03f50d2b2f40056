/** The request in flight: at most one. A reload of the page continues to follow it. */

import { ApiError } from "./api_error.js";

const KEY = "lorikeet.in_flight";

export class InFlight {
  constructor(api, progress) {
    this.api = api;
    this.progress = progress;
    this.current = null; // {id, input, isCancelled}; without id and input until it is submitted
    progress.cancelButton.addEventListener("click", () => this.#cancel());
  }

  /** `{id, input}` of the request that the page followed before it was reloaded, or null. */
  get left() {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  }

  /**
   * Follow the request `{id, input}` that `submit` returns. Returns `{input, output}`. Throws the error that ended the
   * request.
   */
  async run(submit) {
    this.current = { isCancelled: false };
    this.progress.start();
    let announcement = "Done";
    try {
      const { id, input } = await submit();
      sessionStorage.setItem(KEY, JSON.stringify({ id, input }));
      this.current.id = id;
      if (this.current.isCancelled) await this.#cancel();
      for await (const status of this.api.follow(id)) this.progress.show(status);
      return { input, output: await this.api.result(id) };
    } catch (error) {
      announcement = error.message;
      throw error;
    } finally {
      sessionStorage.removeItem(KEY);
      this.current = null;
      this.progress.end(announcement);
    }
  }

  async #cancel() {
    this.current.isCancelled = true;
    this.progress.say("Cancelling");
    if (!this.current.id) return; // `run` cancels it once it has an id
    try {
      await this.api.cancel(this.current.id);
    } catch (error) {
      if (!(error instanceof ApiError)) this.progress.say("Cancelling failed. The gateway cannot be reached");
      // An ApiError says that the request has ended: its result follows.
    }
  }
}
