// Form submission with errors shown next to their fields, or below the form.

import { ApiError } from "./http.js";

// Call `submit(values, button)` with the fields' texts by name; errors it throws are shown.
export function onSubmit(form, submit) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter ?? form.querySelector("[type=submit]");
    clear(form);
    button.disabled = true;
    try {
      await submit(Object.fromEntries(new FormData(form)), button);
    } catch (error) {
      showErrors(form, error);
    } finally {
      button.disabled = false;
    }
    form.querySelector("[aria-invalid]")?.focus();
  });
}

export function clear(form) {
  form.querySelector(".error").textContent = "";
  for (const field of form.querySelectorAll("[aria-invalid]")) mark(field, "");
}

function showErrors(form, error) {
  const rest = [];
  for (const { field, message } of fieldErrors(error)) {
    const input = form.elements[field];
    if (input?.getAttribute("aria-describedby")) mark(input, message);
    else rest.push(message);
  }
  form.querySelector(".error").textContent = rest.join(" ");
}

function fieldErrors(error) {
  if (!(error instanceof ApiError) && !error.errors) return [{ message: "The server cannot be reached; try again." }];
  const described = error.errors.filter(({ message }) => message);
  return described.length ? described : [{ field: error.field, message: error.message }];
}

function mark(input, message) {
  if (message) input.setAttribute("aria-invalid", "true");
  else input.removeAttribute("aria-invalid");
  const [id] = input.getAttribute("aria-describedby").split(" ");
  document.getElementById(id).textContent = message;
}
