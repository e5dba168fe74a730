// From sign-up to reading back, in TypeScript, with the generated types and openapi-fetch. Prints what it read.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { env: Record<string, string | undefined> };

type Problem = components["schemas"]["ProblemAnswer"];
type Reading = components["schemas"]["ReadingSent"];
type Kinds = "application/json" | "application/problem+json";

const baseUrl = process.env.TIDEGATE_URL ?? "";
const client = (token: string) =>
  createClient<paths, Kinds>({ baseUrl, headers: token ? { Authorization: `Bearer ${token}` } : {} });

function given<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.data === undefined) throw new Error(answer.error?.code ?? answer.error?.detail ?? "no answer");
  return answer.data;
}

const email = "typescript@example.org";
const password = "a horse that types its battery";
const anybody = client("");
const user = given(await anybody.POST("/user/signup", { body: { name: "Type Script", email, password } }));
const session = given(await anybody.POST("/user/login", { body: { email, password } }));
const owner = client(session.accessToken);

const place = { lat: 48.1371543, lon: 11.575 };
const device = given(
  await owner.POST("/devices", { body: { sensorType: "temperature", location: place, name: "press-ts" } }),
);
const unnamed = given(await owner.POST("/devices", { body: { sensorType: "door", location: device.location } }));
const params = { path: { id: device.id } };
const { token } = given(await owner.POST("/devices/{id}/token", { params }));

const readings: Reading[] = [
  { ts: "2026-01-31T12:00:00.000Z", value: 21.5, unit: "°C" },
  { ts: Date.parse("2026-01-31T12:00:01Z"), value: true, tags: { hall: "3" } },
  { ts: "2026-01-31T12:00:02.125Z", value: "idle" },
];
const taken = given(await client(token).POST("/readings", { body: readings }));

const query = { device: device.id, sensorType: "temperature" };
let items: components["schemas"]["ReadingAnswer"][] = [];
for (const until = Date.now() + 20_000; items.length < readings.length && Date.now() < until; ) {
  items = (await owner.GET("/readings", { params: { query } })).data?.items ?? []; // stored shortly after it was accepted
}

const claims = given(await owner.GET("/user/token"));
const session_ends: string | undefined = claims.sid;
const refused = await owner.POST("/devices", { body: { sensorType: "", location: place } });
const wrong = refused.error?.errors?.map((error) => error.field);

console.log(JSON.stringify({
  user: user.id === claims.owner,
  tokenType: session.tokenType,
  createdAt: device.createdAt,
  location: unnamed.location,
  accepted: taken.accepted,
  rejected: taken.rejected,
  deviceClaim: claims.device ?? null,
  session: session_ends !== undefined,
  wrong,
  items,
}));
