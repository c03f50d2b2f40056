/** A picture before and after, with a boundary that a pointer or the arrow keys move. */

import { find } from "./dom.js";

const SMALL = 256; // a picture below this many pixels is enlarged

export class Compare {
  constructor(root) {
    this.root = root;
    this.before = find(".before", root);
    this.after = find(".after", root);
    this.range = find("input", root);
    this.range.addEventListener("input", () => this.#move(this.range.value));
    root.addEventListener("pointerdown", (event) => this.#drag(event));
    root.addEventListener("pointermove", (event) => root.hasPointerCapture(event.pointerId) && this.#moveTo(event));
    this.after.addEventListener("load", () => this.#fit());
    this.before.addEventListener("error", () => this.#setBefore(null)); // expired, or of another host
  }

  /** Show the picture `after`, beside `before` unless that is null. */
  show(before, after) {
    this.root.hidden = false;
    this.after.src = after;
    this.#setBefore(before);
    this.#move(50);
  }

  #setBefore(address) {
    this.root.classList.toggle("alone", address === null);
    this.range.disabled = address === null;
    if (address === null) this.before.removeAttribute("src");
    else this.before.src = address;
  }

  #fit() {
    const { naturalWidth: width, naturalHeight: height } = this.after;
    this.root.style.setProperty("--width", width);
    this.root.style.setProperty("--height", height);
    this.root.style.setProperty("--zoom", Math.max(width, height) < SMALL ? 4 : 1);
  }

  #drag(event) {
    if (event.button !== 0 || this.range.disabled) return;
    event.preventDefault();
    this.root.setPointerCapture(event.pointerId);
    this.range.focus({ preventScroll: true });
    this.#moveTo(event);
  }

  #moveTo(event) {
    const box = this.root.getBoundingClientRect();
    this.#move((100 * (event.clientX - box.left)) / box.width);
  }

  #move(percent) {
    const at = Math.min(100, Math.max(0, percent));
    this.range.value = at;
    this.range.setAttribute("aria-valuetext", `${Math.round(at)} % before`);
    this.root.style.setProperty("--split", `${at}%`);
  }
}
