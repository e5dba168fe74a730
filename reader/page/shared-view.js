// A shared view: an API key in the fragment of the page's address, which browsers send to no server.
//
// It is taken out of the address before anything else happens, as is whatever else looks like a token, and kept in this
// tab only.

import { keepKey } from "./credentials.js";

const PART = "key=";
// Its header, a JSON object in Base64, begins with {".
const TOKEN = /eyJ[\w-]*\.[\w-]+\.[\w-]*/;

// Take the key out of the address: "kept", "unusable" for what is no key that may read, or "" without one.
export function takeKey() {
  const parts = location.hash.slice(1).split("&");
  const secret = parts.filter(isSecret);
  if (!secret.length) return "";
  const rest = parts.filter((part) => !isSecret(part)).join("&");
  history.replaceState(history.state, "", `${location.pathname}${location.search}${rest && `#${rest}`}`);
  const key = secret.map(decoded).find((part) => part.startsWith(PART));
  return key && keepKey(key.slice(PART.length)) ? "kept" : "unusable";
}

function isSecret(part) {
  return decoded(part).startsWith(PART) || TOKEN.test(decoded(part));
}

// As it is, where it cannot be decoded.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
