// Commands to a device: sent to its newest session, with its acknowledgement shown.

import { send } from "./session.js";

// Send the form's command; resolves to the text that says what the device acknowledged. A payload that is not JSON is an
// error next to its field, as any error of the server is.
export async function sendCommand(path, { name, payload }) {
  const body = { name: name.trim() };
  if (payload.trim()) body.payload = parse(payload);
  const { status, result, detail } = await send("POST", `${path}/commands`, body);
  if (status === "failed") return `Failed: ${detail ?? "the device gives no reason"}`;
  return result === null || result === undefined ? "Done." : `Done: ${JSON.stringify(result)}`;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new PayloadError();
  }
}

// Has the form of an answer's errors, which forms.js shows next to their fields.
class PayloadError extends Error {
  errors = [{ field: "payload", message: 'This is not JSON: write {"rate": 2}, 2 or "text".' }];
}
