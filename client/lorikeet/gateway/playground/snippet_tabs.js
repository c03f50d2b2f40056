/** The tabs with the request as code. */

import { find, findAll } from "./dom.js";
import * as snippets from "./snippets.js";

export class SnippetTabs {
  constructor() {
    this.tabs = findAll("#snippets [role=tab]");
    this.code = find("#snippet");
    this.tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => this.#select(index));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        this.#select((index + step + this.tabs.length) % this.tabs.length);
        this.tabs[this.selected].focus();
      });
    });
    this.#select(0);
  }

  /** `input`: the request; `gateway`: `{base, endpoint, needsKey}`. */
  show(input, gateway) {
    this.input = input;
    this.gateway = gateway;
    this.#show();
  }

  #select(index) {
    this.selected = index;
    this.tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", i === index);
      tab.tabIndex = i === index ? 0 : -1;
    });
    this.code.setAttribute("aria-labelledby", this.tabs[index].id);
    this.#show();
  }

  #show() {
    const write = snippets[this.tabs[this.selected].dataset.language];
    if (this.input) this.code.textContent = write(this.input, this.gateway);
  }
}
