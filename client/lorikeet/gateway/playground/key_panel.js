/** The API key. The tab's storage keeps it; no request but those to the gateway holds it. */

import { find } from "./dom.js";

const KEY = "lorikeet.key";

export class KeyPanel {
  constructor(isRequired) {
    this.panel = find("#key-panel");
    this.toggle = find("#key-toggle");
    this.input = find("#key");
    this.hint = find("#key-hint");
    this.value = sessionStorage.getItem(KEY) ?? "";
    this.input.value = this.value;
    this.toggle.addEventListener("click", () => this.#show(this.panel.hidden));
    this.panel.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#set(this.input.value.trim());
      this.#show(false);
      this.toggle.focus();
    });
    this.#set(this.value);
    if (isRequired && !this.value) this.#show(true);
  }

  /** Ask for a key, because the gateway refused the one that it got. */
  ask(reason) {
    this.hint.textContent = reason;
    this.hint.classList.add("error");
    this.#show(true);
  }

  #set(value) {
    this.value = value;
    sessionStorage.setItem(KEY, value);
    this.toggle.textContent = value ? "API key set" : "API key";
    this.hint.textContent = "This tab keeps the key until it is closed.";
    this.hint.classList.remove("error");
  }

  #show(isShown) {
    this.panel.hidden = !isShown;
    this.toggle.setAttribute("aria-expanded", isShown);
    if (isShown) this.input.focus();
  }
}
