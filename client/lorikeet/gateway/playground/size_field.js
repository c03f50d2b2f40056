/** The size of a result without an init image: a preset, or width and height. */

import { element, find, findAll } from "./dom.js";
import { Field } from "./fields.js";

const CUSTOM = "custom";

export class SizeField extends Field {
  constructor(root, context) {
    super(root, context);
    const presets = Object.entries(context.config.size_presets);
    this.control.append(
      ...presets.map(([name, [width, height]]) =>
        element("option", { value: name, textContent: `${name.replaceAll("_", " ")}  ${width} × ${height}` })),
      element("option", { value: CUSTOM, textContent: "Width and height" }),
    );
    this.custom = find(".custom-size", root);
    [this.width, this.height] = findAll("input", this.custom);
    this.control.addEventListener("change", () => this.#showCustom());
  }

  read() {
    if (this.control.value !== CUSTOM) return super.read();
    return { width: this.width.valueAsNumber || null, height: this.height.valueAsNumber || null };
  }

  write(value) {
    const isCustom = typeof value === "object";
    super.write(isCustom ? CUSTOM : value);
    this.width.value = isCustom ? value.width : 512;
    this.height.value = isCustom ? value.height : 512;
    this.#showCustom();
  }

  get isOptional() {
    return true;
  }

  #showCustom() {
    this.custom.hidden = this.control.value !== CUSTOM;
  }
}
