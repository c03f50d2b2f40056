/** A result: its images, facts, warnings and receipt. */

import { Compare } from "./compare.js";
import { element, find, findAll } from "./dom.js";

export class ResultView {
  constructor({ onUseAsInput, onKeepSeed }) {
    this.compare = new Compare(find("#compare"));
    this.images = find("#images");
    this.download = find("#download");
    find("#use-as-input").addEventListener("click", () => onUseAsInput(this.image.url));
    find("#keep-seed").addEventListener("click", () => onKeepSeed(this.output.seed));
  }

  /** `before`: the address of the init picture, or null. */
  show(output, before) {
    this.output = output;
    this.before = before;
    find("#empty").hidden = true;
    find("#caption").hidden = false;
    this.#showThumbnails();
    this.#select(0);
    this.#showWarnings(output.warnings ?? []);
    find("#receipt").hidden = !output.receipt;
    find("#receipt pre").textContent = JSON.stringify({ timings: output.timings, receipt: output.receipt }, null, 2);
  }

  #showThumbnails() {
    this.images.hidden = this.output.images.length < 2;
    this.images.replaceChildren(...this.output.images.map((image, index) => {
      const picture = element("img", { src: image.url, alt: `Image ${index + 1}`, width: 64, height: 64 });
      const button = element("button", { type: "button", className: "thumbnail" }, picture);
      button.addEventListener("click", () => this.#select(index));
      return button;
    }));
  }

  #select(index) {
    this.image = this.output.images[index];
    findAll("button", this.images).forEach((button, i) => button.setAttribute("aria-pressed", i === index));
    this.compare.show(this.before, this.image.url);
    this.download.href = this.image.url;
    this.download.download = this.image.file_name ?? `lorikeet-${this.output.seed}-${index}`;
    const isFlagged = this.output.has_nsfw_concepts?.[index];
    find("#facts").textContent = [
      `seed ${this.output.seed}`,
      this.image.width && `${this.image.width} × ${this.image.height}`,
      this.output.timings?.total && `${this.output.timings.total.toFixed(1)} s`,
      isFlagged && "blackened by the safety checker",
    ].filter(Boolean).join("  ·  ");
  }

  #showWarnings(warnings) {
    const root = find("#warnings");
    root.hidden = warnings.length === 0;
    find(".count", root).textContent = warnings.length;
    find("ul", root).replaceChildren(...warnings.map((text) => element("li", { textContent: text })));
  }
}
