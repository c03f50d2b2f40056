/** Short forms for the DOM. */

export const find = (selector, root = document) => root.querySelector(selector);
export const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

/** A new element. `properties` are set as properties, so text is never read as HTML. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A copy of the first element of a <template>. */
export function fromTemplate(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

let lastId = 0;

/** An id that no other element of the page has. */
export const newId = () => `f${++lastId}`;
