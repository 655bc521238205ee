// The theme button: system setting, light or dark. All pages share the choice.

(() => {
  const button = document.getElementById("theme");
  const names = { "light dark": "as the system", light: "light", dark: "dark" };
  const symbols = { "light dark": "◐", light: "☀", dark: "☾" };
  const order = Object.keys(names);

  // Storage may be disabled for pages opened from disk. Then the choice lasts until the page closes.
  function stored() {
    try {
      return localStorage.getItem("vtcav-theme");
    } catch (error) {
      if (error instanceof DOMException) return null;
      throw error;
    }
  }

  function set(value) {
    document.documentElement.style.colorScheme = value;
    document.documentElement.dataset.theme = value;
    button.textContent = symbols[value];
    button.setAttribute("aria-label", `Colours: ${names[value]}`);
  }

  button.addEventListener("click", () => {
    const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
    set(next);
    try {
      localStorage.setItem("vtcav-theme", next);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
  });
  set(order.includes(stored()) ? stored() : "light dark");
})();
