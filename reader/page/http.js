// Requests to the server, with errors decoded from problem documents.

import { synchronize } from "./clock.js";

export class ApiError extends Error {
  constructor(status, problem, retryAfter) {
    super(problem?.errors?.[0]?.message || problem?.detail || `The server answered ${status}.`);
    this.status = status;
    this.code = problem?.code;
    this.errors = problem?.errors ?? [];
    this.retryAfterMs = Number(retryAfter) * 1000 || 0;
  }
}

// What is shown where a request failed that can be made again.
export function failureText(error) {
  return error instanceof ApiError ? error.message : "The server cannot be reached; try again.";
}

// A successful response; throws ApiError for an error response, TypeError without a response.
export async function request(path, options) {
  const response = await fetch(path, options);
  synchronize(response.headers.get("Date"));
  if (!response.ok) throw await apiErrorOf(response);
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

async function apiErrorOf(response) {
  let problem = null;
  try {
    problem = await response.json();
  } catch {
    // A proxy's error is not a problem document.
  }
  return new ApiError(response.status, problem, response.headers.get("Retry-After"));
}

export const bearer = (token) => ({ Authorization: `Bearer ${token}` });
