/** The API's schema: ranges, choices, defaults and descriptions, which the page does not repeat. */

export class Schema {
  constructor(root, node = root) {
    this.root = root;
    this.node = node;
  }

  /** The schema of a property, or of an item's property if this is a list's. */
  field(name) {
    const properties = this.#resolved.items ? new Schema(this.root, this.#resolved.items).#resolved : this.#resolved;
    return new Schema(this.root, properties.properties[name]);
  }

  get description() {
    return this.#resolved.description ?? "";
  }

  get default() {
    return this.#resolved.default;
  }

  get minimum() {
    return this.#resolved.minimum;
  }

  get maximum() {
    return this.#resolved.maximum;
  }

  /** The valid values of an enumeration. */
  get choices() {
    return this.#resolved.enum;
  }

  /** The node with its references and the branch that is not null. What the node itself says wins. */
  get #resolved() {
    const flatten = (node) => {
      const { $ref, anyOf, ...own } = node;
      if ($ref) return { ...flatten(this.root.$defs[$ref.split("/").at(-1)]), ...own };
      if (anyOf) return { ...flatten(anyOf.find((branch) => branch.type !== "null")), ...own };
      return own;
    };
    return flatten(this.node);
  }
}
