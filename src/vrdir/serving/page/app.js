// The page of `vrdir serve`: photos in, a slider before | after, the diagnosis, boxes, a download.
// Everything that computes is behind `engine`: the service, or this device (device.js).
import { asset, embedded } from "./assets.js";
import { Device } from "./device.js";
import { counted, nameOf, showBoxes, showDiagnosis } from "./findings.js";
import { Moving } from "./moving.js";
import { Service, ServiceError } from "./service.js";

const SIDES = { service: [1600], device: [256, 640] }; // pixels of the views, one after the other
const SETTLE_MS = 250; // wait for the slider of the strength to rest
const SHOWN = ["image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "image/bmp"];
const SAMPLES = [["haze.jpg", "Haze"], ["rain.jpg", "Rain"], ["noise.jpg", "Noise"]];

const $ = (id) => document.getElementById(id);
const service = new Service(() => $("key").value.trim());
const device = new Device();
const photos = []; // {file, name, button, image, state, view, full, error, work}
let current = null; // the photo that is shown
let present = new AbortController(); // ends all work whose options are out of date
let shownUrls = [];

const onDevice = () => $("device").checked;
const engine = () => (onDevice() ? device : service);
const isShown = (file) => SHOWN.includes(file.type);

// --- Words ----------------------------------------------------------------------------------------

const say = (text) => { $("status").textContent = text; };

function fail(text) {
  $("error-text").textContent = text;
  $("error").hidden = !text;
}

/** Show how far the work is: from 0 to 1, null while that is not known; false when it is done. */
function busy(share, text = "") {
  $("work").hidden = share === false;
  $("work-text").textContent = text;
  if (typeof share === "number") $("progress").value = share;
  else $("progress").removeAttribute("value");
}

/** Scroll to a part of the page that begins far below, as on a phone. */
function reveal(part) {
  if (part.getBoundingClientRect().top > window.innerHeight / 2) part.scrollIntoView({ block: "start" });
}

function describe(error) {
  if (error instanceof ServiceError && (error.status === 401 || error.status === 403)) {
    $("key-option").hidden = false;
    return `${error.message} Enter the API key below.`;
  }
  return error.message || String(error);
}

function options() {
  const boxes = [...$("only").querySelectorAll("input")];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  return {
    strength: $("strength").value,
    only: chosen.length === boxes.length ? [] : chosen,
    none: boxes.length > 0 && chosen.length === 0,
    weights: $("weights").value,
  };
}

// --- Choosing -------------------------------------------------------------------------------------

async function take(files) {
  fail("");
  const movies = files.filter((file) => file.type.startsWith("video/"));
  const stills = files.filter((file) => !file.type.startsWith("video/"));
  for (const file of stills) addToGallery(file);
  $("gallery-panel").hidden = photos.length < 2;
  if (stills.length) {
    moving.stop();
    $("moving").hidden = true;
    await show(photos[photos.length - stills.length]);
    await restoreRest();
  }
  if (movies.length) {
    document.body.classList.add("started");
    await moving.play(movies[0]);
  }
}

function addToGallery(file) {
  const [item, button, image, name, state] = ["li", "button", "img", "span", "span"].map((tag) => document.createElement(tag));
  image.alt = "";
  if (isShown(file)) image.src = URL.createObjectURL(file);
  name.textContent = file.name;
  state.className = "state";
  button.type = "button";
  button.append(image, name, state);
  item.append(button);
  $("gallery").append(item);
  const photo = { file, name: file.name, button, image, state, view: null, full: null, error: null, work: null };
  button.addEventListener("click", () => show(photo));
  photos.push(photo);
  mark(photo, "waiting");
}

function mark(photo, state) {
  photo.state.textContent = state;
  photo.button.dataset.state = state;
}

/** Restore the photos of the gallery that have not been shown yet, one after the other. */
async function restoreRest() {
  const { signal } = present;
  for (const photo of photos) {
    if (signal.aborted) return;
    if (!photo.view && !photo.error) await viewOf(photo);
    countGallery();
  }
}

function countGallery() {
  const failed = photos.filter((photo) => photo.error).length;
  const done = photos.filter((photo) => photo.view).length + failed;
  Object.assign($("gallery-progress"), { max: Math.max(photos.length, 1), value: done });
  $("gallery-count").textContent = `${done - failed} of ${photos.length} restored${failed ? `, ${failed} failed` : ""}`;
}

// --- One photo ------------------------------------------------------------------------------------

/** Restore a photo for the view: reduced if it is large. Where it is known, it is not done again. */
function viewOf(photo, onView = () => {}) {
  if (photo.view || photo.error) return Promise.resolve();
  photo.onView = onView;
  if (!photo.work) {
    const work = makeView(photo).finally(() => { if (photo.work === work) photo.work = null; });
    photo.work = work;
  }
  return photo.work;
}

async function makeView(photo) {
  const { signal } = present;
  mark(photo, "busy");
  try {
    const sides = SIDES[onDevice() ? "device" : "service"];
    for (const maxSide of sides) {
      const view = await engine().restore(photo.file, {
        ...options(), maxSide, signal, accept: isShown(photo.file) ? null : "image/jpeg",
      });
      if (signal.aborted) return;
      photo.view = view;
      if (Math.max(view.width ?? 0, view.height ?? 0) < maxSide) break; // it is no larger
      if (maxSide !== sides.at(-1)) photo.onView();
    }
    mark(photo, "done");
    if (photo.image.src) URL.revokeObjectURL(photo.image.src);
    photo.image.src = URL.createObjectURL(photo.view.blob);
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    photo.view = null;
    photo.error = describe(error);
    mark(photo, "failed");
  }
}

async function show(photo) {
  const changed = photo !== current;
  current = photo;
  const { signal } = present;
  document.body.classList.add("started");
  for (const one of photos) one.button.setAttribute("aria-current", String(one === photo));
  fail("");
  if (!photo.view && !photo.error) {
    say(`Restoring ${photo.name} ...`);
    busy(null, onDevice() ? "Restoring on this device ..." : "Restoring ...");
    if (changed) displayBefore(photo);
  }
  const stillWanted = () => photo === current && !signal.aborted;
  await viewOf(photo, () => { if (stillWanted()) display(photo, photo.view); });
  if (!stillWanted()) return;
  busy(false);
  countGallery();
  if (photo.error) {
    $("result").hidden = true;
    $("findings").hidden = true;
    say("");
    offerDetector();
    fail(`${photo.name}: ${photo.error}`);
    return;
  }
  await display(photo, photo.full ?? photo.view);
  if (!stillWanted()) return;
  say(`${photo.name} is restored.`);
  if ($("boxes").checked) await findBoxes();
}

/** Put two pictures into the slider; return false if another photo is wanted by then. */
async function put(photo, before, after) {
  const old = shownUrls;
  shownUrls = [URL.createObjectURL(before), URL.createObjectURL(after)];
  [$("before").src, $("after").src] = shownUrls;
  const shown = await Promise.all([$("before"), $("after")].map((image) => image.decode().then(() => true, () => false)));
  old.forEach((url) => URL.revokeObjectURL(url));
  if (photo !== current || !shown[0]) return false;
  $("before").alt = `${photo.name} before`;
  $("after").alt = `${photo.name} after`;
  $("result-title").textContent = photo.name;
  for (const svg of [$("before-boxes"), $("after-boxes")]) svg.replaceChildren();
  return true;
}

/** Show a photo as it is, while it is being restored. */
async function displayBefore(photo) {
  $("findings").hidden = true;
  $("result").hidden = true;
  if (!isShown(photo.file) || !(await put(photo, photo.file, photo.file)) || photo.view) return;
  $("view").classList.add("pending");
  $("result").hidden = $("options").hidden = false;
  $("full").hidden = $("download").hidden = true;
  $("size-note").textContent = "";
  zoom();
  reveal($("result"));
}

/** Put a photo and its result into the slider. */
async function display(photo, result) {
  const before = isShown(photo.file) || onDevice() ? photo.file : await service.asJpeg(photo.file, SIDES.service[0]);
  const after = SHOWN.includes(result.blob.type) ? result.blob : photo.view.blob;
  if (!(await put(photo, before, after))) return;
  $("view").classList.remove("pending");
  $("result").hidden = $("findings").hidden = $("options").hidden = $("download").hidden = false;
  zoom();
  const [was, is] = [$("before"), $("after")].map((image) => [image.naturalWidth, image.naturalHeight]);
  const reduced = is[0] < was[0];
  $("full").hidden = !reduced || photo.full !== null;
  $("size-note").textContent = reduced
    ? `Shown with ${is.join(" x ")} of ${was.join(" x ")} pixels. The download has all of them.`
    : `${is.join(" x ")} pixels`;
  showDiagnosis($("summary"), $("bars"), result);
}

function zoom() {
  const chosen = $("zoom").value;
  const fit = chosen === "fit";
  const wide = Math.max($("before").naturalWidth, $("after").naturalWidth, 1);
  const high = Math.max($("before").naturalHeight, $("after").naturalHeight, 1);
  const room = $("view").clientWidth || 300;
  const tall = (0.72 * window.innerHeight * wide) / high;
  const width = fit ? Math.min(room, tall, Math.max(2 * wide, 480)) : (wide * Number(chosen)) / devicePixelRatio;
  $("view").classList.toggle("zoomed", !fit);
  for (const side of document.querySelectorAll(".side")) {
    side.style.setProperty("--shown-width", `${Math.round(width)}px`);
    side.classList.toggle("pixels", !fit);
  }
}

async function findBoxes() {
  for (const svg of [$("before-boxes"), $("after-boxes")]) svg.replaceChildren();
  if (!$("boxes").checked || !current?.view) return;
  const photo = current;
  $("boxes-note").textContent = "Looking for objects ...";
  try {
    const [before, after] = await Promise.all([service.detect(photo.file), service.detect(photo.view.blob)]);
    if (photo !== current) return;
    showBoxes($("before-boxes"), before);
    showBoxes($("after-boxes"), after);
    $("boxes-note").textContent = `${before.detector}. Before: ${counted(before)}. After: ${counted(after)}.`;
  } catch (error) {
    $("boxes-note").textContent = "";
    fail(describe(error));
  }
}

/** Restore all pixels of the photo that is shown, in its own format and with its metadata. */
async function restoreFull() {
  const photo = current;
  if (photo.full) return photo.full;
  const { signal } = present;
  const stop = new AbortController();
  const end = () => stop.abort();
  signal.addEventListener("abort", end);
  $("stop-work").hidden = false;
  $("stop-work").onclick = end;
  const started = performance.now();
  const report = (share) => {
    const left = share > 0.02 ? ((performance.now() - started) / 1000) * (1 / share - 1) : null;
    busy(share || null, `Restoring all pixels ...${left === null ? "" : ` about ${Math.ceil(left)} s left`}`);
  };
  report(0);
  say(`Restoring all pixels of ${photo.name} ...`);
  try {
    photo.full = await engine().restore(photo.file, { ...options(), signal: stop.signal, onProgress: report });
    say(`All pixels of ${photo.name} are restored.`);
    return photo.full;
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else fail(describe(error));
    return null;
  } finally {
    signal.removeEventListener("abort", end);
    $("stop-work").hidden = true;
    busy(false);
  }
}

async function showFull() {
  const photo = current;
  const full = await restoreFull();
  if (full && photo === current) await display(photo, full);
}

async function download() {
  if (!current?.view || $("download").getAttribute("aria-disabled") === "true") return;
  const photo = current;
  $("download").setAttribute("aria-disabled", "true");
  const full = await restoreFull();
  $("download").removeAttribute("aria-disabled");
  if (!full) return;
  const url = URL.createObjectURL(full.blob);
  Object.assign(document.createElement("a"), { href: url, download: full.fileName ?? photo.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

// --- Options --------------------------------------------------------------------------------------

let settling = 0;
function optionsChanged() {
  $("strength-value").textContent = `${Math.round($("strength").value * 100)} %`;
  $("strength").setAttribute("aria-valuetext", $("strength-value").textContent);
  present.abort();
  present = new AbortController();
  for (const photo of photos) {
    Object.assign(photo, { view: null, full: null, error: null, work: null });
    mark(photo, "waiting");
  }
  clearTimeout(settling);
  if (current) settling = setTimeout(async () => { await show(current); await restoreRest(); }, SETTLE_MS);
}

function offer(names, controllable) {
  $("only").querySelectorAll("label").forEach((label) => label.remove());
  for (const name of names) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), {
      type: "checkbox", value: name, checked: true, disabled: !controllable,
    });
    box.addEventListener("change", optionsChanged);
    label.append(box, nameOf(name));
    $("only").append(label);
  }
  $("strength").disabled = !controllable;
}

let offered = null; // what GET /v1/weights answers
let limits = null; // what GET /v1/limits answers

/** Offer the detector of the service, which no photo goes to that is restored on this device. */
function offerDetector() {
  const detector = onDevice() ? null : limits?.detector;
  $("boxes").disabled = !detector;
  if (!detector) $("boxes").checked = false;
  $("boxes-note").textContent = detector ? `Detector: ${detector}` : "";
  $("boxes-how").hidden = Boolean(limits?.detector);
  if (onDevice() && limits?.detector) $("boxes-note").textContent = "The detector is in the service; photos on this device do not go there.";
}

function offerControls() {
  const chosen = offered?.weights.find((one) => one.name === $("weights").value);
  const known = $("only").dataset.names;
  const names = onDevice() ? device.facts.shares.filter((name) => name !== "clean") : chosen?.degradations ?? [];
  $("weights-option").hidden = onDevice() || (offered?.weights.length ?? 0) < 2;
  $("only").dataset.names = `${names} ${onDevice() || chosen?.backend === "torch"}`;
  if (known !== $("only").dataset.names) offer(names, onDevice() || chosen?.backend === "torch");
}

async function deviceChanged() {
  if (onDevice()) await openDevice();
  offerControls();
  offerDetector();
  optionsChanged();
}

async function openDevice() {
  const { facts } = device;
  $("device-note").textContent = `Loading the network ${facts.weights} (${(facts.download / 2 ** 20).toFixed(0)} MB, once) ...`;
  try {
    const { provider, threads } = await device.open();
    const by = provider === "webgpu" ? "the graphics processor" : `${threads} thread${threads === 1 ? "" : "s"}`;
    $("device-note").textContent = `Ready: ${facts.weights}, with ${by}. Photos do not leave this device.`;
  } catch (error) {
    $("device-note").textContent = "";
    fail(describe(error));
  }
}

async function setUp() {
  const inBrowser = await device.find();
  let weights;
  [weights, limits] = embedded ? [new Error("no service"), null] : await Promise.all([
    service.weights().catch((error) => error), service.limits().catch(() => null),
  ]);
  const online = !(weights instanceof Error);
  if (online) fail("");
  const alone = inBrowser && !online && !(weights instanceof ServiceError && weights.status !== 404);
  if (online && !offered) {
    offered = weights;
    for (const one of weights.weights) $("weights").append(new Option(one.name, one.name));
    $("weights").value = weights.default;
  } else if (!online && !alone) {
    fail(describe(weights));
  }
  if (inBrowser) await device.install();
  $("device").disabled = !inBrowser || alone;
  $("device").checked = alone || (inBrowser && $("device").checked);
  $("device-option").hidden = !inBrowser;
  $("device-how").hidden = inBrowser;
  for (const part of document.querySelectorAll(".needs-service")) part.hidden = alone;
  if (alone) openDevice();
  offerControls();
  offerDetector();
  if (limits?.live) {
    $("live").hidden = false;
    $("live-view").src = await service.withToken("v1/live.mjpg").catch(() => "");
  }
  $("webcam").hidden = !navigator.mediaDevices?.getUserMedia;
  document.documentElement.dataset.ready = "1";
}

// --- Events ---------------------------------------------------------------------------------------

const moving = new Moving({
  section: $("moving"), video: $("video"), canvas: $("canvas"), rate: $("rate"),
  link: $("video-download"), options, say, reveal, fail: (error) => fail(describe(error)),
  service, device: () => (onDevice() ? device : null),
});

$("files").addEventListener("change", async (event) => {
  const chosen = [...event.target.files];
  event.target.value = "";
  await take(chosen);
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) take(files);
});
for (const [file, name] of SAMPLES) {
  const [button, image] = ["button", "img"].map((tag) => document.createElement(tag));
  Object.assign(button, { type: "button", className: "sample" });
  Object.assign(image, { src: asset(`samples/${file}`), alt: "" });
  button.append(image, name);
  button.addEventListener("click", async () => {
    const blob = await (await fetch(image.src)).blob();
    await take([new File([blob], file, { type: "image/jpeg" })]);
  });
  $("samples").append(button);
}
$("strength").addEventListener("input", optionsChanged);
$("weights").addEventListener("change", () => { offerControls(); optionsChanged(); });
$("device").addEventListener("change", deviceChanged);
$("zoom").addEventListener("change", zoom);
$("boxes").addEventListener("change", findBoxes);
$("download").addEventListener("click", download);
$("full").addEventListener("click", showFull);
$("webcam").addEventListener("click", () => { document.body.classList.add("started"); moving.webcam(); });
$("stop").addEventListener("click", () => moving.stop());
$("snap").addEventListener("click", async () => take([await moving.snap()]));
$("key").addEventListener("change", setUp);
$("slider").addEventListener("slide", (event) => {
  $("slider").setAttribute("aria-valuenow", Math.round(event.target.value));
});
window.addEventListener("resize", zoom);
await setUp();
