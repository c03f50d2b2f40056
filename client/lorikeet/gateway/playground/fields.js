/**
 * The form's fields. Each has `read()` (undefined: leave the field out of the request), `write(value)` (undefined: the
 * default), `problem`, `locate(path)` (the field at a path of the request below this one) and `showError(message)`.
 */

import { element, find, newId } from "./dom.js";

export class Field {
  constructor(root, { schema }) {
    this.root = root;
    this.schema = schema;
    this.control = find("input:not([type=range]):not([type=file]), textarea, select", root);
    const label = find("label", root);
    if (this.control && label) {
      this.control.id = newId();
      label.htmlFor = this.control.id;
    }
    if (label && schema) label.title = schema.description;
    this.control?.setAttribute("aria-description", schema?.description ?? "");
    this.error = element("p", { className: "error", id: newId(), hidden: true });
    root.append(this.error);
  }

  read() {
    const text = this.control.value.trim();
    return text === "" && this.isOptional ? undefined : text;
  }

  write(value) {
    this.control.value = value ?? this.schema.default ?? "";
  }

  get isOptional() {
    return this.schema.default !== undefined;
  }

  /** What keeps the field from being sent; "" if nothing. The server checks the rest. */
  get problem() {
    return "";
  }

  locate() {
    return this;
  }

  showError(message) {
    this.error.textContent = message;
    this.error.hidden = message === "";
    this.root.classList.toggle("invalid", message !== "");
    if (message) {
      this.control.setAttribute("aria-invalid", "true");
      this.control.setAttribute("aria-describedby", this.error.id);
    } else {
      this.control.removeAttribute("aria-invalid");
      this.control.removeAttribute("aria-describedby");
    }
  }

  focus() {
    this.control.focus();
  }
}

/** A number, with a slider if the field has one. */
export class NumberField extends Field {
  constructor(root, context) {
    super(root, context);
    this.slider = find("input[type=range]", root);
    for (const input of [this.control, this.slider].filter(Boolean)) {
      if (this.schema.minimum !== undefined) input.min = this.schema.minimum;
      if (this.schema.maximum !== undefined) input.max = this.schema.maximum;
    }
    this.slider?.addEventListener("input", () => (this.control.value = this.slider.value));
    this.control.addEventListener("input", () => this.#moveSlider());
    this.write();
  }

  read() {
    const number = this.control.valueAsNumber;
    return Number.isNaN(number) || number === this.schema.default ? undefined : number;
  }

  write(value) {
    super.write(value);
    this.#moveSlider();
  }

  get problem() {
    return this.control.validity.badInput ? "Expected a number" : "";
  }

  #moveSlider() {
    if (this.slider) this.slider.value = this.control.value;
  }
}

/** The seed: a whole number, also above 2^53, where only its digits are exact. */
export class SeedField extends Field {
  constructor(root, context) {
    super(root, context);
    find("[data-random]", root).addEventListener("click", () => {
      this.write(crypto.getRandomValues(new Uint32Array(1))[0]);
      this.control.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }

  read() {
    const text = super.read();
    const number = Number(text);
    return /^-?\d+$/.test(text) && Number.isSafeInteger(number) ? number : text;
  }

  get isOptional() {
    return true;
  }
}

export class ChoiceField extends Field {
  constructor(root, context) {
    super(root, context);
    this.control.append(...this.schema.choices.map((name) => element("option", { value: name, textContent: name })));
    this.write();
  }

  read() {
    const value = super.read();
    return value === this.schema.default ? undefined : value;
  }
}

export class CheckField extends Field {
  read() {
    return this.control.checked || undefined;
  }

  write(value) {
    this.control.checked = Boolean(value ?? this.schema.default);
  }
}
