/** The "Copy" buttons of boxes with code. */

import { find } from "./dom.js";

const SHOWN_MS = 1500;

export function addCopyButton(box) {
  const button = find(".copy", box);
  button.addEventListener("click", async () => {
    await copy(find("pre", box));
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), SHOWN_MS);
  });
}

async function copy(code) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(code.textContent);
    return;
  }
  // Over http to another host, browsers have no navigator.clipboard.
  getSelection().selectAllChildren(code);
  document.execCommand("copy");
}
