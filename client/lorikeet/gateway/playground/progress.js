/** The progress of a request: place in the queue, denoising steps, speed and elapsed time. */

import { find } from "./dom.js";

// The Triton models that a request passes, which the log names.
const STAGES = {
  prepare: "Preparing",
  text_encoder: "Encoding the prompt",
  image_encoder: "Encoding the image prompt",
  vae_encoder: "Encoding the picture",
  denoiser: "Loading the weights",
  vae_decoder: "Decoding",
  finish: "Writing the image",
};
const STEP = /^(\d+)\/(\d+)(?: (.+))?$/; // "12/30 1.4 it/s"

export class Progress {
  constructor() {
    this.root = find("#progress");
    this.bar = find("#progress-bar");
    this.state = find("#progress-state");
    this.speed = find("#progress-speed");
    this.time = find("#progress-time");
    this.announcement = find("#announcement");
    this.cancelButton = find("#cancel");
    this.startButton = find("#generate");
  }

  start() {
    this.begun = performance.now();
    this.quarter = 0;
    this.#swap(this.startButton, this.cancelButton);
    this.ticks = setInterval(() => this.#showTime(), 200);
    this.#showTime();
    this.say("Sending");
  }

  end(announcement) {
    clearInterval(this.ticks);
    this.#swap(this.cancelButton, this.startButton);
    this.announcement.textContent = announcement;
  }

  /** A text in place of steps. */
  say(text) {
    this.bar.removeAttribute("value");
    this.speed.textContent = "";
    this.state.textContent = text;
    this.announcement.textContent = text;
  }

  /** Show a status of the queue protocol. */
  show({ status, queue_position: ahead, logs }) {
    if (status === "UNREACHABLE") this.say("Connection lost. Trying again");
    else if (status === "IN_QUEUE") this.say(ahead ? `Waiting, ${ahead} ahead` : "Waiting");
    else if (status === "IN_PROGRESS") this.#showSteps(logs ?? []);
  }

  #showSteps(logs) {
    for (const { message } of logs) {
      const step = STEP.exec(message);
      if (step) this.#showStep(Number(step[1]), Number(step[2]), step[3] ?? "");
      else if (message in STAGES) this.#showStage(STAGES[message]);
    }
  }

  /** Before the first step the bar has no value; after the last one it stays full. */
  #showStage(text) {
    if (this.bar.hasAttribute("value")) this.state.textContent = text;
    else this.say(text);
  }

  #showStep(done, of, speed) {
    this.bar.max = of;
    this.bar.value = done;
    this.state.textContent = `${done}/${of}`;
    this.speed.textContent = speed;
    const quarter = Math.floor((4 * done) / of);
    if (quarter > this.quarter) this.announcement.textContent = `${25 * quarter} % of ${of} steps`;
    this.quarter = quarter;
  }

  /** Show the progress in place of the button that starts it, or the reverse. The keyboard's focus follows. */
  #swap(from, to) {
    const hadFocus = document.activeElement === from;
    this.root.hidden = to === this.startButton;
    this.startButton.hidden = to === this.cancelButton;
    if (hadFocus) to.focus();
  }

  #showTime() {
    this.time.textContent = `${((performance.now() - this.begun) / 1000).toFixed(1)} s`;
  }
}
