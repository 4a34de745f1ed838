// Before the first paint: the theme chosen last, else the machine's.
const chosen = localStorage.getItem("theme");
const dark = chosen ? chosen === "dark" : !matchMedia("(prefers-color-scheme: light)").matches;
document.documentElement.dataset.theme = dark ? "dark" : "light";
