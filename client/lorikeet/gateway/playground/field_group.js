/** The fields of one object of the request: of the request itself, or of an item of a list. */

import { findAll } from "./dom.js";
import { CheckField, ChoiceField, Field, NumberField, SeedField } from "./fields.js";
import { ListField } from "./list_field.js";
import { PictureField } from "./picture_field.js";
import { SizeField } from "./size_field.js";

const KINDS = {
  text: Field,
  number: NumberField,
  seed: SeedField,
  choice: ChoiceField,
  check: CheckField,
  picture: PictureField,
  size: SizeField,
  list: ListField,
};

export class FieldGroup {
  /** `context`: `{schema, config}`, with the schema of the object or of the list that it is an item of. */
  constructor(root, { schema, config }) {
    this.root = root;
    this.byName = new Map();
    this.rest = {};
    for (const part of findAll("[data-field]", root)) {
      const { field: name, kind } = part.dataset;
      if (!(kind in KINDS)) continue;
      const label = part.querySelector("label, legend").textContent;
      const makeGroup = (item, context) => new FieldGroup(item, context);
      this.byName.set(name, new KINDS[kind](part, { schema: schema.field(name), config, label, makeGroup }));
    }
  }

  /** All fields, those of lists' items too. */
  get fields() {
    return [...this.byName.values()].flatMap((field) => [field, ...(field.fields ?? [])]);
  }

  read() {
    const known = [...this.byName].map(([name, field]) => [name, field.read()]);
    return { ...this.rest, ...Object.fromEntries(known.filter(([, value]) => value !== undefined)) };
  }

  /** Show an object. `rest` keeps what has no field here, so that `read` returns it again. */
  write(object) {
    const rest = { ...object };
    for (const [name, field] of this.byName) {
      const fits = !(field instanceof PictureField) || !Array.isArray(rest[name]); // several pictures in one field
      field.write(fits ? rest[name] : undefined);
      if (fits) delete rest[name];
    }
    this.rest = rest;
  }

  locate([name, ...path]) {
    return this.byName.get(name)?.locate(path);
  }

  focus() {
    [...this.byName.values()][0].focus();
  }
}
