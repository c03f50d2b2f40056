/** Light or dark: the system's choice, until the user makes one. */

const KEY = "lorikeet.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };

let theme = localStorage.getItem(KEY) ?? "system";

function apply(button) {
  document.documentElement.dataset.theme = theme;
  if (!button) return;
  button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[theme];
  button.setAttribute("aria-label", `Colours: ${button.textContent}`);
}

apply(); // before the page is painted

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme-toggle");
  apply(button);
  button.addEventListener("click", () => {
    theme = NEXT[theme] ?? "system";
    localStorage.setItem(KEY, theme);
    apply(button);
  });
});
