// The dialog that asks before something is ended for good.

const $ = (id) => document.getElementById(id);

// Resolves to whether `yes` was chosen.
export function confirm(question, consequence, yes) {
  const dialog = $("confirm");
  $("confirm-title").textContent = question;
  $("confirm-text").textContent = consequence;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  $("confirm-yes").onclick = () => dialog.close("yes");
  return new Promise((done) => {
    dialog.onclose = () => done(dialog.returnValue === "yes");
  });
}
