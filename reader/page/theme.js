// Set the theme before the first rendering: the user's choice, else the system's.
(() => {
  const chosen = localStorage.getItem("tidegate.theme");
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
