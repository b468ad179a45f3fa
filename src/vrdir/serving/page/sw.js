// Offline after the first load, and threads on hosts that do not send the headers for them.
// `vrdir web build` writes the name of the build here, so that a new one replaces all its files.
const CACHE = "vrdir-BUILD";

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil((async () => {
    const { files } = await (await fetch("device.json", { cache: "no-cache" })).json();
    await (await caches.open(CACHE)).addAll(files.map((file) => new Request(file, { cache: "no-cache" })));
  })());
});

self.addEventListener("activate", (event) => event.waitUntil((async () => {
  for (const name of await caches.keys()) {
    if (name.startsWith("vrdir-") && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
})()));

function isolated(answer) {
  if (answer.status === 0) return answer;
  const headers = new Headers(answer.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const inside = request.url.startsWith(self.registration.scope);
  if (request.method !== "GET" || !inside || new URL(request.url).pathname.includes("/v1/")) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return isolated(kept);
    const answer = await fetch(request);
    if (answer.status === 200) await cache.put(request, answer.clone()); // the network and the runtime
    return isolated(answer);
  })());
});
