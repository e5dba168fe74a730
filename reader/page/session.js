// Who is logged in, and requests in their name. Tokens live as long as the tab, and go into a header only.
//
// A duplicated tab begins with a copy of its original's tokens, and a refresh token serves once. So a tab that renews
// tells the others, and one that is about to renew asks them first: who has the tokens that came of mine?

const KEY = "tidegate.session";
const RENEW_BEFORE_MS = 60_000;
const ASK_MS = 150;
// For how long the server takes a second use for a race; after it, for theft.
const RACE_MS = 11_000;
const MOST_REMEMBERED = 100;

const tabs = new BroadcastChannel(KEY);
let session = read();
let renewing = null;
let notBefore = 0;
let onEnd = () => {};
let onNews = () => {};

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

// `before`: the refresh tokens that these came of, all of them used.
function keep(answer, email, before = []) {
  store({
    email,
    access: answer.accessToken,
    refresh: answer.refreshToken,
    until: Date.now() + answer.expiresIn * 1000,
    before: before.slice(-MOST_REMEMBERED),
  });
}

function store(newer) {
  session = newer;
  notBefore = 0;
  sessionStorage.setItem(KEY, JSON.stringify(session));
}

tabs.onmessage = ({ data: { asks, tells } }) => {
  if (asks && session?.before?.includes(asks)) tabs.postMessage({ tells: session });
  if (tells && tells.before.includes(session?.refresh)) {
    store(tells);
    onNews();
  }
};

// Resolves when another tab has told newer tokens, or after a while.
function news(ms, question) {
  return new Promise((done) => {
    onNews = done;
    setTimeout(done, ms);
    if (question) tabs.postMessage(question);
  });
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
  renewing ??= renewed().finally(() => {
    renewing = null;
  });
  return renewing;
}

async function renewed() {
  const mine = session;
  for (;;) {
    await news(ASK_MS, { asks: mine.refresh });
    const wait = notBefore - Date.now();
    if (session === mine && wait > 0) {
      if (Date.now() < mine.until) return; // the access token serves that long
      await news(wait);
    }
    if (session !== mine) return; // another tab has renewed it, or this one was logged out
    try {
      const answer = await post("/user/refresh", { refreshToken: mine.refresh });
      if (session !== mine) return;
      keep(answer, mine.email, [...(mine.before ?? []), mine.refresh]);
      tabs.postMessage({ tells: session });
      return;
    } catch (error) {
      if (session !== mine) return;
      if (error.code !== "refresh_used") throw error;
      // Another tab was faster, and tells its tokens when it has them. If none does, the answer was lost or somebody
      // else has the token: when it comes again after this time, the server ends the session for whoever has it.
      notBefore = Date.now() + RACE_MS;
    }
  }
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
