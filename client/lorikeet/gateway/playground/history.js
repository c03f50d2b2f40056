/** The results of this session. They are kept in the tab's storage, so that they outlive a reload of the page. */

import { element, find } from "./dom.js";

const KEY = "lorikeet.history";
const MAX_ENTRIES = 24;

export class History {
  /** `onSelect`: called with an entry, `{input, output}`. */
  constructor(onSelect) {
    this.root = find("#history");
    this.list = find("ol", this.root);
    this.onSelect = onSelect;
    this.entries = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    this.#show();
  }

  add(entry) {
    this.entries = [entry, ...this.entries].slice(0, MAX_ENTRIES);
    this.#store();
    this.#show();
  }

  #store() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.entries));
    } catch {
      sessionStorage.removeItem(KEY); // over the browser's limit: this page still shows the entries
    }
  }

  #show() {
    this.root.hidden = this.entries.length === 0;
    this.list.replaceChildren(...this.entries.map((entry) => {
      const { input, output } = entry;
      const title = `${input.prompt}, seed ${output.seed}`;
      const picture = element("img", { src: output.images[0].url, alt: title, width: 72, height: 72 });
      const button = element("button", { type: "button", className: "thumbnail", title: `Load: ${title}` }, picture);
      button.addEventListener("click", () => this.onSelect(entry));
      return element("li", {}, button);
    }));
  }
}
