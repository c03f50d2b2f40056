/** Fields of the API for which the form has no control, as a JSON object. */

import { Field } from "./fields.js";

export class JsonField extends Field {
  /** The object; an empty one while the text is none. */
  read() {
    return this.problem ? {} : JSON.parse(this.control.value.trim() || "{}");
  }

  get problem() {
    try {
      const value = JSON.parse(this.control.value.trim() || "{}");
      const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
      return isObject ? "" : 'Expected a JSON object, such as {"clip_skip": 1}';
    } catch (error) {
      return error.message;
    }
  }

  write(value) {
    this.control.value = Object.keys(value).length ? JSON.stringify(value, null, 2) : "";
  }
}
