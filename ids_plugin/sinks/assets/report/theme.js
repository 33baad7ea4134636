/* Light, dark, or as the system says. */

import { byId } from "./page.js";

const THEMES = ["auto", "light", "dark"];
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
let currentTheme = "auto";

/** The theme in force: auto, light or dark. */
export function theme() {
  return currentTheme;
}

/** Sets a theme. */
export function setTheme(name) {
  const isDark = name === "dark" || (name === "auto" && systemIsDark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  currentTheme = name;
  byId("theme").textContent = `Theme: ${name}`;
}

/** Sets the next theme. */
export function setNextTheme() {
  setTheme(THEMES[(THEMES.indexOf(currentTheme) + 1) % THEMES.length]);
}

systemIsDark.addEventListener("change", () => setTheme(currentTheme));
