// The button that sets the colours, light or dark.

function setUpTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const remembered = { get: () => null, set: () => {} };
  try {  // a page opened from a file may have no storage
    const storage = window.localStorage;
    remembered.get = () => storage.getItem("wavroute-theme");
    remembered.set = (theme) => storage.setItem("wavroute-theme", theme);
    if (["light", "dark"].includes(remembered.get())) root.dataset.theme = remembered.get();
  } catch { /* the button still works, for as long as the page is open */ }
  const current = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  const other = () => (current() === "dark" ? "light" : "dark");
  const update = () => { button.textContent = other() === "dark" ? "Dark" : "Light"; };
  button.addEventListener("click", () => {
    root.dataset.theme = other();
    try { remembered.set(root.dataset.theme); } catch { /* likewise */ }
    update();
  });
  system.addEventListener("change", update);
  button.hidden = false;
  update();
}
