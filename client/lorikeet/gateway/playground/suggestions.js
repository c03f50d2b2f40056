/** Values that the page proposes for the text fields with a list. */

import { element } from "./dom.js";

/** `suggestions`: values by the id of a <datalist>. */
export function fillSuggestions(suggestions) {
  for (const [id, values] of Object.entries(suggestions)) {
    document.getElementById(id).replaceChildren(...values.map((value) => element("option", { value })));
  }
}
