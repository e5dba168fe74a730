// Requests to the server, and how its refusals are read.

import { learn } from "./clock.js";

export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem?.errors?.[0]?.message || problem?.detail || `The server answered ${status}.`);
    this.status = status;
    this.code = problem?.code;
    this.errors = problem?.errors ?? [];
    this.retryAfterMs = Number(retryAfter) * 1000 || 0;
  }
}

// The answer of a call that was taken; Refused where it was not, TypeError where nobody answers.
export async function request(path, options) {
  const response = await fetch(path, options);
  learn(response.headers.get("Date"));
  if (!response.ok) throw await refusal(response);
  return response;
}

export async function post(path, body, options = {}) {
  const response = await request(path, {
    ...options,
    method: "POST",
    headers: { "Content-Type": "application/json", ...options.headers },
    body: JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

async function refusal(response) {
  let problem = null;
  try {
    problem = await response.json();
  } catch {
    // A proxy's answer is no problem document.
  }
  return new Refused(response.status, problem, response.headers.get("Retry-After"));
}

export const bearer = (token) => ({ Authorization: `Bearer ${token}` });
