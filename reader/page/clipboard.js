// Copying to the clipboard, also on plain HTTP pages, which have no navigator.clipboard.

const FEEDBACK_MS = 2000;

// Make a button copy the result of `text()` and confirm it.
export function bindCopyButton(button, text) {
  const name = button.textContent;
  button.addEventListener("click", async () => {
    button.textContent = (await copyText(text(), button)) ? "Copied" : "Select and copy it";
    setTimeout(() => {
      button.textContent = name;
    }, FEEDBACK_MS);
  });
}

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text, button);
  }
}

// Next to the button: nothing outside an open dialog can be selected.
function copyBySelection(text, button) {
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
