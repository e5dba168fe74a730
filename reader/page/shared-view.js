// A shared view: an API key in the fragment of the page's address, which browsers send to no server.
//
// It is taken out of the address before anything else happens, and kept in this tab only.

import { keepKey } from "./credentials.js";

const PART = "key=";

// Take the key out of the address: "kept", "unusable" for what is no key that may read, or "" without one.
export function takeKey() {
  const parts = location.hash.slice(1).split("&");
  const key = parts.find((part) => part.startsWith(PART))?.slice(PART.length);
  if (key === undefined) return "";
  const rest = parts.filter((part) => !part.startsWith(PART)).join("&");
  history.replaceState(history.state, "", `${location.pathname}${location.search}${rest && `#${rest}`}`);
  return keepKey(key) ? "kept" : "unusable";
}
