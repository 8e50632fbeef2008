"use strict";
// Light or dark: the reader's system decides until the button does; the choice is remembered where storage is allowed.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("vendomini-theme"); } catch { return null; } };
  const store = (value) => { try { localStorage.setItem("vendomini-theme", value); } catch { /* private mode */ } };
  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const announce = () => document.dispatchEvent(new CustomEvent("themechange", { detail: current() }));
  if (stored()) root.dataset.theme = stored();
  window.currentTheme = current;
  system.addEventListener("change", announce);
  // Paper is light.
  let screen;
  addEventListener("beforeprint", () => { screen = root.dataset.theme; root.dataset.theme = "light"; announce(); });
  addEventListener("afterprint", () => {
    if (screen) root.dataset.theme = screen; else delete root.dataset.theme;
    announce();
  });
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => { button.textContent = current() === "dark" ? "Light" : "Dark"; };
    label();
    document.addEventListener("themechange", label);
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      store(root.dataset.theme);
      announce();
    });
  });
})();
