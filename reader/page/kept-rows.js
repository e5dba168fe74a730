// Lists whose rows are kept while their items change, so that a button does not lose the focus.

// Show items in a list: `key(item)` tells them apart, `make(item)` returns a row, `fill(row, item)` updates it.
export function showRows(list, items, { key, make, fill }) {
  const before = new Map([...list.children].map((row) => [row.dataset.key, row]));
  let next = list.firstElementChild;
  for (const item of items) {
    const name = key(item);
    const row = before.get(name) ?? make(item);
    before.delete(name);
    row.dataset.key = name;
    fill(row, item);
    if (row === next) next = next.nextElementSibling;
    else move(list, row, next);
  }
  for (const row of before.values()) row.remove();
}

// Moving a row takes the focus from it.
function move(list, row, next) {
  const focused = row.contains(document.activeElement) ? document.activeElement : null;
  list.insertBefore(row, next);
  focused?.focus({ preventScroll: true });
}

// An element with a class and a text.
export function part(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  if (tag === "button") made.type = "button";
  return made;
}
