// Offline after the first load, and threads on hosts that do not send the headers for them.
const CACHE = "vrdir-1";

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil((async () => {
    const { files } = await (await fetch("device.json")).json();
    await (await caches.open(CACHE)).addAll(files);
  })());
});
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

function isolated(answer) {
  if (!answer || answer.status === 0) return answer;
  const headers = new Headers(answer.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const address = new URL(request.url);
  if (request.method !== "GET" || address.origin !== self.location.origin || address.pathname.includes("/v1/")) return;
  event.respondWith((async () => {
    const cache = await caches.open(CACHE);
    try {
      const answer = await fetch(request);
      if (answer.ok && request.url.startsWith(self.registration.scope)) await cache.put(request, answer.clone());
      return isolated(answer);
    } catch (error) {
      const kept = await cache.match(request, { ignoreSearch: true });
      if (kept) return isolated(kept);
      throw error;
    }
  })());
});
