// Text into the clipboard, from pages of plain HTTP too, which have no navigator.clipboard.

const TOLD_MS = 2000;

// Let a button copy what `text()` gives, and say so.
export function copies(button, text) {
  const name = button.textContent;
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text(), button)) ? "Copied" : "Select and copy it";
    setTimeout(() => {
      button.textContent = name;
    }, TOLD_MS);
  });
}

async function copied(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text, button);
  }
}

// Beside the button: what lies outside of an open dialog cannot be selected.
function copiedBySelection(text, button) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  button.after(field);
  field.select();
  try {
    return document.execCommand("copy");
  } finally {
    field.remove();
    button.focus();
  }
}
