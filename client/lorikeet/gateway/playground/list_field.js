/** A list of LoRAs, ControlNets or IP-Adapters: each item is a group of fields made from a template. */

import { find, fromTemplate } from "./dom.js";
import { Field } from "./fields.js";

export class ListField extends Field {
  constructor(root, context) {
    super(root, context);
    this.context = context;
    this.items = [];
    this.container = find(".items", root);
    this.addButton = find(".add", root);
    this.control = this.addButton;
    this.noun = this.addButton.textContent.replace(/^Add an? /, "");
    this.addButton.addEventListener("click", () => {
      this.#add({}).focus();
      this.#changed();
    });
  }

  read() {
    return this.items.length ? this.items.map((item) => item.read()) : undefined;
  }

  write(value) {
    while (this.items.length) this.#remove(this.items[0]);
    for (const item of value ?? []) this.#add(item);
  }

  locate([index, ...path]) {
    return this.items[index]?.locate(path) ?? this;
  }

  get fields() {
    return this.items.flatMap((item) => item.fields);
  }

  #add(value) {
    const root = fromTemplate(this.root.dataset.template);
    this.container.append(root);
    const item = this.context.makeGroup(root, this.context);
    item.write(value);
    this.items.push(item);
    find("[data-remove-item]", root).addEventListener("click", () => {
      this.#remove(item);
      this.addButton.focus();
      this.#changed();
    });
    this.#number();
    return item;
  }

  #remove(item) {
    this.items.splice(this.items.indexOf(item), 1);
    item.root.remove();
    this.#number();
  }

  #number() {
    this.items.forEach((item, index) => {
      const name = `${this.noun} ${index + 1}`;
      item.root.setAttribute("role", "group");
      item.root.setAttribute("aria-label", name);
      find("[data-remove-item]", item.root).setAttribute("aria-label", `Remove ${name}`);
    });
  }

  #changed() {
    this.root.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
