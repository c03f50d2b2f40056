/** A picture: a file that is uploaded when the request is sent, or a URL. */

import { find, fromTemplate, newId } from "./dom.js";
import { Field } from "./fields.js";

const UPLOAD_VALID_MS = 10 * 60 * 1000; // well below the shortest lifetime of a stored file

export class PictureField extends Field {
  constructor(root, context) {
    root.append(fromTemplate("picture-control"));
    super(root, context);
    this.fileInput = find("input[type=file]", root);
    this.image = find("img", root);
    this.fileName = find(".file-name", root);
    this.removeButton = find("[data-remove]", root);
    this.file = null;
    this.uploaded = null; // {url, at}
    this.#label(context);
    this.#listen();
  }

  /** The URL, or the file until it has one. */
  read() {
    const url = this.control.value.trim();
    if (url) return url;
    return (this.#freshUrl ?? this.file) || (this.isOptional ? undefined : "");
  }

  /** `value`: a URL or undefined. */
  write(value) {
    this.file = this.uploaded = null;
    this.control.value = value ?? "";
    this.#show(value);
  }

  get isOptional() {
    return this.schema.default !== undefined;
  }

  setFile(file) {
    if (!file.type.startsWith("image/")) {
      this.showError(`${file.name}: expected a picture, found ${file.type || "a file of unknown type"}`);
      return;
    }
    this.file = file;
    this.uploaded = null;
    this.control.value = "";
    this.#show(URL.createObjectURL(file), file.name);
    this.#changed();
  }

  /** Store the file with the gateway, unless it was stored a short time ago. */
  async upload(api) {
    if (this.file && !this.control.value.trim() && !this.#freshUrl) {
      this.uploaded = { url: await api.upload(this.file), at: Date.now() };
    }
  }

  get #freshUrl() {
    return this.uploaded && Date.now() - this.uploaded.at < UPLOAD_VALID_MS ? this.uploaded.url : null;
  }

  #label({ label }) {
    const drop = find(".drop", this.root);
    this.fileInput.id = newId();
    drop.htmlFor = this.fileInput.id;
    this.fileInput.setAttribute("aria-label", `${label}, file`);
    this.control.setAttribute("aria-label", `${label}, URL`);
    this.removeButton.setAttribute("aria-label", `Remove ${label.toLowerCase()}`);
  }

  #listen() {
    this.fileInput.addEventListener("change", () => {
      if (this.fileInput.files.length) this.setFile(this.fileInput.files[0]);
      this.fileInput.value = ""; // so that choosing the same file again is a change
    });
    this.control.addEventListener("change", () => this.write(this.control.value.trim() || undefined));
    this.removeButton.addEventListener("click", () => {
      this.write(undefined);
      this.#changed();
      this.fileInput.focus();
    });
    this.image.addEventListener("error", () => this.#showName());
  }

  #show(address, name = address) {
    if (this.image.src.startsWith("blob:")) URL.revokeObjectURL(this.image.src);
    this.name = name ?? "";
    this.image.hidden = !address;
    if (address) this.image.src = address;
    else this.image.removeAttribute("src");
    this.fileName.textContent = "";
    this.root.classList.toggle("has-picture", Boolean(address));
    this.removeButton.hidden = !address;
    this.showError("");
  }

  /** The browser cannot show the picture: a format that it does not know, or an address of another host. */
  #showName() {
    this.image.hidden = true;
    this.fileName.textContent = this.name;
  }

  #changed() {
    this.control.dispatchEvent(new Event("input", { bubbles: true }));
  }
}
