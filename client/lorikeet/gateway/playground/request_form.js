/** The form as a request of the API, and errors at its fields. */

import { find } from "./dom.js";
import { FieldGroup } from "./field_group.js";
import { JsonField } from "./json_field.js";
import { PictureField } from "./picture_field.js";
import { Schema } from "./schema.js";

export class RequestForm {
  constructor(root, config) {
    this.root = root;
    this.group = new FieldGroup(root, { schema: new Schema(config.schema), config });
    this.json = new JsonField(find("[data-kind=json]", root), {});
    this.more = find("#more", root);
    this.failure = find("#failure", root);
    this.picture = this.group.byName.get("image_url");
    root.addEventListener("input", () => this.#showWhatApplies());
    this.#takePictures();
  }

  /** The request. A picture that has no URL yet is a File. */
  read() {
    const request = { ...this.group.read(), ...this.json.read() };
    // Fields that are hidden because they do not apply.
    delete request[request.image_url ? "image_size" : "noise_strength"];
    return request;
  }

  /** Show the problems of fields that cannot be sent. Returns whether there is one. */
  showProblems() {
    const problems = this.#allFields.filter((field) => field.problem);
    this.#showErrors(problems.map((field) => ({ field, message: field.problem })));
    return problems.length > 0;
  }

  /** Upload the pictures, then read the request. */
  async readForSending(api) {
    await Promise.all(this.#pictures.map((field) => field.upload(api)));
    return this.read();
  }

  write(request) {
    this.group.write(request);
    this.json.write(this.group.rest);
    this.group.rest = {};
    this.more.open = this.json.control.value !== "";
    this.clearErrors();
    this.#changed();
  }

  /** Set one field of the request. */
  set(name, value) {
    this.group.byName.get(name).write(value);
    this.#changed();
  }

  clearErrors() {
    for (const field of this.#allFields) field.showError("");
    this.showFailure("");
  }

  /** Show an error of no field, or remove it with "". */
  showFailure(message) {
    this.failure.textContent = message;
    this.failure.hidden = message === "";
  }

  /** Show the errors of the API: `[{path, message}]`. An error of no field here is shown above the button. */
  showFieldErrors(errors) {
    this.#showErrors(errors.map(({ path, message }) => {
      const field = this.group.locate(path) ?? (path[0] in this.json.read() ? this.json : null);
      const text = field === this.json ? `${path.join(".")}: ${message}` : message;
      return { field, message: field ? text : `${path.join(".") || "request"}: ${message}` };
    }));
  }

  #showErrors(errors) {
    const byField = new Map();
    for (const { field, message } of errors) byField.set(field, [...(byField.get(field) ?? []), message]);
    for (const [field, messages] of byField) field?.showError(messages.join("\n"));
    if (byField.has(this.json)) this.more.open = true;
    this.showFailure((byField.get(null) ?? []).join("\n"));
    this.#allFields.find((field) => byField.has(field))?.focus(); // the first one on the page
  }

  #changed() {
    this.root.dispatchEvent(new Event("input", { bubbles: true }));
  }

  #showWhatApplies() {
    const hasPicture = Boolean(this.picture.read());
    find("#strength", this.root).hidden = !hasPicture;
    find("#size", this.root).hidden = hasPicture;
  }

  /** A picture may be dropped or pasted anywhere. It goes to the picture field below, or else to the init picture. */
  #takePictures() {
    const target = (node) => this.#pictures.find((field) => field.root.contains(node)) ?? this.picture;
    let entered = null;
    const mark = (field) => {
      entered?.root.classList.remove("drop-here");
      entered = field;
      entered?.root.classList.add("drop-here");
    };
    document.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      mark(target(event.target));
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget ?? mark(null));
    document.addEventListener("drop", (event) => {
      mark(null);
      const [file] = event.dataTransfer.files;
      if (!file) return;
      event.preventDefault();
      target(event.target).setFile(file);
    });
    document.addEventListener("paste", (event) => {
      const [file] = event.clipboardData.files;
      if (!file) return;
      event.preventDefault();
      target(document.activeElement).setFile(file);
    });
  }

  get #allFields() {
    return [...this.group.fields, this.json];
  }

  get #pictures() {
    return this.group.fields.filter((field) => field instanceof PictureField);
  }
}
