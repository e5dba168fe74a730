// Who is logged in, and requests in their name. Tokens live as long as the tab, and go into a header only.

const KEY = "tidegate.session";
const RENEW_BEFORE_MS = 60_000;

let session = read();
let renewing = null;
let onEnd = () => {};

export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.errors?.[0]?.message || problem?.detail || `The server answered ${status}.`);
    this.status = status;
    this.code = problem?.code;
  }
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY));
  } catch {
    return null;
  }
}

function keep(answer, email) {
  session = {
    email,
    access: answer.accessToken,
    refresh: answer.refreshToken,
    until: Date.now() + answer.expiresIn * 1000,
  };
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

export function loggedIn() {
  return session !== null;
}

export function email() {
  return session?.email ?? "";
}

export function whenEnded(call) {
  onEnd = call;
}

export function forget() {
  session = null;
  sessionStorage.removeItem(KEY);
}

async function post(path, body, headers = {}) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
}

async function refusal(response) {
  let problem = null;
  try {
    problem = await response.json();
  } catch {
    // A proxy's answer is no problem document.
  }
  return new Refused(response.status, problem);
}

export async function logIn(address, password) {
  keep(await post("/user/login", { email: address, password }), address);
}

export async function logOut() {
  const { access, refresh } = session ?? {};
  forget();
  if (access) {
    await post("/user/logout", { refreshToken: refresh }, { Authorization: `Bearer ${access}` }).catch(() => {});
  }
}

// One renewal at a time: a refresh token serves once.
async function renew() {
  renewing ??= post("/user/refresh", { refreshToken: session.refresh })
    .then((answer) => keep(answer, session.email))
    .finally(() => {
      renewing = null;
    });
  return renewing;
}

async function token() {
  if (session && Date.now() > session.until - RENEW_BEFORE_MS) await renew().catch(ended);
  if (!session) throw new Refused(401, { detail: "You are logged out." });
  return session.access;
}

function ended(error) {
  if (error instanceof Refused && error.status === 401) {
    forget();
    onEnd();
  }
  throw error;
}

export async function get(path, query = {}, options = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const address = parameters.size ? `${path}?${parameters}` : path;
  for (let again = true; ; again = false) {
    const used = await token();
    const response = await fetch(address, {
      ...options,
      headers: { ...options.headers, Authorization: `Bearer ${used}` },
    });
    if (response.ok) return response;
    const error = await refusal(response);
    if (error.status !== 401) throw error;
    if (!again) ended(error);
    if (session?.access === used) await renew().catch(ended);
  }
}

export async function getJson(path, query, options) {
  return (await get(path, query, options)).json();
}

// Everything that a list has, page by page.
export async function getAll(path, query = {}, most = 5000) {
  const items = [];
  let cursor;
  do {
    const page = await getJson(path, { ...query, cursor });
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor && items.length < most);
  return items;
}
