// The page of `vrdir serve`: photos in, a slider before | after, the diagnosis, boxes, a download.
// Everything that computes is behind `engine`: the service, or this device (device.js).
import { Service, ServiceError } from "./service.js";
import { Device } from "./device.js";
import { showBoxes, showDiagnosis } from "./findings.js";
import { Moving } from "./moving.js";

const PREVIEW_SIDE = 1600; // pixels: a larger photo is shown reduced first
const DEVICE_SIDE = 640; // the same, on this device
const SETTLE_MS = 250; // wait for the slider of the strength to rest
const SHOWN = ["image/jpeg", "image/png", "image/webp", "image/avif", "image/gif", "image/bmp"];
const SAMPLES = [
  ["samples/haze.jpg", "Haze"], ["samples/rain.jpg", "Rain"], ["samples/noise.jpg", "Noise"],
];

const $ = (id) => document.getElementById(id);
const service = new Service(() => $("key").value.trim());
const device = new Device();
const photos = []; // {file, name, button, shown}
let current = null; // the photo that is shown
let request = null; // AbortController of the restoration under way
let urls = []; // of the photo that is shown, revoked with it

const say = (text) => { $("status").textContent = text; };
function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function describe(error) {
  if (error instanceof ServiceError && (error.status === 401 || error.status === 403)) {
    $("key-option").hidden = false;
    return `${error.message} Enter the API key under Options.`;
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

const engine = () => ($("device").checked ? device : service);

// --- Choosing -------------------------------------------------------------------------------------

async function take(files) {
  fail("");
  const movies = files.filter((file) => file.type.startsWith("video/"));
  const stills = files.filter((file) => !file.type.startsWith("video/"));
  if (movies.length) await moving.play(movies[0]);
  if (!stills.length) return;
  for (const file of stills) addToGallery(file);
  $("gallery-panel").hidden = photos.length < 2;
  await show(photos[photos.length - stills.length]);
  $("result").scrollIntoView({ block: "nearest" });
  await restoreRest();
}

function addToGallery(file) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const name = document.createElement("span");
  image.alt = "";
  name.textContent = file.name;
  button.type = "button";
  button.append(image, name);
  item.append(button);
  $("gallery").append(item);
  const photo = { file, name: file.name, button, image, result: null, error: null };
  button.addEventListener("click", () => show(photo));
  photos.push(photo);
}

/** Restore the photos of the gallery that have not been shown yet, one after the other. */
async function restoreRest() {
  const progress = $("gallery-progress");
  const update = () => {
    const done = photos.filter((photo) => photo.result || photo.error).length;
    const failed = photos.filter((photo) => photo.error).length;
    progress.max = photos.length;
    progress.value = done;
    $("gallery-count").textContent =
      `${done} of ${photos.length} restored${failed ? `, ${failed} failed` : ""}`;
  };
  update();
  for (const photo of photos) {
    if (!photo.result && !photo.error) await restorePhoto(photo, new AbortController());
    update();
  }
}

// --- One photo ------------------------------------------------------------------------------------

/** Restore a photo for the view: reduced if it is large. The result is kept with the photo. */
async function restorePhoto(photo, controller, side = null) {
  photo.error = null;
  try {
    photo.result = await engine().restore(photo.file, {
      ...options(),
      maxSide: side ?? ($("device").checked ? DEVICE_SIDE : PREVIEW_SIDE),
      signal: controller.signal,
      accept: SHOWN.includes(photo.file.type) ? null : "image/jpeg",
      onProgress: (text) => say(text),
    });
    photo.image.src = URL.createObjectURL(photo.result.blob);
  } catch (error) {
    if (error.name === "AbortError") return false;
    photo.error = describe(error);
  }
  photo.button.setAttribute("aria-label", photo.error ? `${photo.name}: failed` : photo.name);
  return true;
}

async function show(photo, side = null) {
  current = photo;
  request?.abort();
  request = new AbortController();
  const mine = request;
  if (!photo.result || side !== null) {
    $("work").hidden = false;
    $("result").hidden = false;
    say(`Restoring ${photo.name} ...`);
    const done = await restorePhoto(photo, mine, side);
    if (!done || mine.signal.aborted) return;
    $("work").hidden = true;
  }
  if (photo.error) {
    $("result").hidden = !$("after").src;
    say("");
    fail(`${photo.name}: ${photo.error}`);
    return;
  }
  fail("");
  await display(photo);
}

/** Put a photo and its result into the slider. */
async function display(photo) {
  urls.forEach((url) => URL.revokeObjectURL(url));
  const before = SHOWN.includes(photo.file.type) ? photo.file : await service.asJpeg(photo.file, PREVIEW_SIDE);
  urls = [URL.createObjectURL(before), URL.createObjectURL(photo.result.blob)];
  [$("before").src, $("after").src] = urls;
  await Promise.all([$("before").decode(), $("after").decode()].map((done) => done.catch(() => 0)));
  $("before").alt = `${photo.name} before`;
  $("after").alt = `${photo.name} after`;
  $("result").hidden = $("findings").hidden = false;
  $("work").hidden = true;
  zoom();
  const [width, height] = [$("before").naturalWidth, $("before").naturalHeight];
  const reduced = $("after").naturalWidth < width;
  $("full").hidden = !reduced;
  $("size-note").textContent = reduced
    ? `Shown at ${$("after").naturalWidth} x ${$("after").naturalHeight} of ${width} x ${height} pixels.` +
      ($("device").checked ? "" : " The download has the full size.")
    : `${$("after").naturalWidth} x ${$("after").naturalHeight} pixels`;
  showDiagnosis($("bars"), photo.result);
  $("download").download = photo.result.fileName ?? photo.name;
  $("download").href = urls[1];
  say(`${photo.name} is restored.`);
  if ($("boxes").checked) await findBoxes();
}

function zoom() {
  const chosen = $("zoom").value;
  const after = $("after");
  const fit = chosen === "fit";
  const wide = Math.max($("before").naturalWidth, after.naturalWidth);
  const room = $("view").clientWidth || 300;
  const tall = (0.78 * window.innerHeight * after.naturalWidth) / Math.max(after.naturalHeight, 1);
  const width = fit ? Math.min(room, tall, Math.max(wide, 320)) : (wide * Number(chosen)) / devicePixelRatio;
  for (const side of document.querySelectorAll(".side")) {
    side.style.setProperty("--shown-width", `${Math.round(width)}px`);
    side.classList.toggle("pixels", !fit);
  }
}

async function findBoxes() {
  for (const svg of [$("before-boxes"), $("after-boxes")]) svg.replaceChildren();
  if (!$("boxes").checked || !current?.result) return;
  const photo = current;
  try {
    const [before, after] = await Promise.all([
      service.detect(photo.file), service.detect(photo.result.blob),
    ]);
    if (photo !== current) return;
    showBoxes($("before-boxes"), before);
    showBoxes($("after-boxes"), after);
    $("boxes-note").textContent =
      `${before.detector} finds ${before.boxes.length} objects before and ${after.boxes.length} after.`;
  } catch (error) {
    fail(describe(error));
  }
}

/** The download is the whole photo in its own format, with its metadata, not the view's preview. */
async function download(event) {
  const link = $("download");
  if (!current?.result || link.dataset.ready || $("device").checked || $("full").hidden && SHOWN.includes(current.file.type)) return;
  event.preventDefault();
  if (link.getAttribute("aria-disabled") === "true") return;
  link.setAttribute("aria-disabled", "true");
  say("Restoring the full size for the download ...");
  try {
    const { blob } = await service.restore(current.file, { ...options() });
    const url = URL.createObjectURL(blob);
    urls.push(url);
    Object.assign(link, { href: url, download: current.name });
    link.dataset.ready = "1";
    say("The full size is ready.");
    link.click();
    delete link.dataset.ready;
    link.href = urls[1];
  } catch (error) {
    fail(describe(error));
  } finally {
    link.removeAttribute("aria-disabled");
  }
}

// --- Options --------------------------------------------------------------------------------------

let waiting = 0;
function optionsChanged() {
  $("strength-value").textContent = `${Math.round($("strength").value * 100)} %`;
  clearTimeout(waiting);
  for (const photo of photos) photo.result = null;
  if (current) waiting = setTimeout(() => show(current), SETTLE_MS);
}

function deviceChanged() {
  const on = $("device").checked;
  for (const input of [$("strength"), ...$("only").querySelectorAll("input"), $("weights")]) {
    input.disabled = on;
  }
  $("device-note").textContent = on
    ? "The exported network always works at full strength and removes everything."
    : "";
  optionsChanged();
}

async function setUp() {
  const [weights, limits] = await Promise.all([
    service.weights().catch((error) => error), service.limits().catch(() => null),
  ]);
  const inBrowser = await device.find();
  const online = !(weights instanceof Error);
  if (online) offerWeights(weights);
  else if (weights instanceof ServiceError && !(inBrowser && weights.status === 404)) fail(describe(weights));
  $("device").disabled = !inBrowser;
  if (!inBrowser) {
    $("device-note").textContent =
      "To offer this, start the service with --web DIR, a folder that `vrdir web build` wrote.";
  } else if (!online) {
    $("device").checked = true;
    $("device").disabled = true;
    for (const part of document.querySelectorAll(".needs-service")) part.hidden = true;
    deviceChanged();
  }
  $("boxes").disabled = !limits?.detector;
  $("boxes-note").textContent = limits?.detector
    ? `Detector: ${limits.detector}`
    : "To see what a detector finds, start the service with --detector FILE.onnx.";
  if (limits?.live) {
    $("live").hidden = false;
    $("live-view").src = "v1/live.mjpg";
  }
  $("webcam").hidden = !navigator.mediaDevices?.getUserMedia || !online;
  document.documentElement.dataset.ready = "1";
}

function offerWeights(found) {
  for (const one of found.weights) $("weights").append(new Option(one.name, one.name));
  $("weights").value = found.default;
  $("weights-option").hidden = found.weights.length < 2;
  const controllable = found.weights[0].backend === "torch";
  const offer = () => {
    const chosen = found.weights.find((one) => one.name === $("weights").value);
    $("only").querySelectorAll("label").forEach((label) => label.remove());
    for (const name of chosen.degradations) {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), {
        type: "checkbox", value: name, checked: true, disabled: !controllable,
      });
      box.addEventListener("change", optionsChanged);
      label.append(box, name.replaceAll("_", " "));
      $("only").append(label);
    }
  };
  offer();
  $("strength").disabled = !controllable;
  $("weights").addEventListener("change", () => { offer(); optionsChanged(); });
}

// --- Events ---------------------------------------------------------------------------------------

const moving = new Moving({
  section: $("moving"), video: $("video"), canvas: $("canvas"), rate: $("rate"),
  link: $("video-download"), options, say, fail: (error) => fail(describe(error)),
  keyed: () => $("key").value.trim() !== "",
});

$("files").addEventListener("change", async (event) => {
  const chosen = [...event.target.files];
  event.target.value = "";
  await take(chosen);
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) take(files);
});
for (const [address, name] of SAMPLES) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sample";
  const image = Object.assign(document.createElement("img"), { src: address, alt: "" });
  button.append(image, name);
  button.addEventListener("click", async () => {
    const blob = await (await fetch(address)).blob();
    await take([new File([blob], address.split("/").pop(), { type: blob.type })]);
  });
  $("samples").append(button);
}
$("strength").addEventListener("input", optionsChanged);
$("device").addEventListener("change", deviceChanged);
$("zoom").addEventListener("change", zoom);
$("boxes").addEventListener("change", findBoxes);
$("download").addEventListener("click", download);
$("full").addEventListener("click", () => show(current, 0));
$("webcam").addEventListener("click", () => moving.webcam());
$("stop").addEventListener("click", () => moving.stop());
$("snap").addEventListener("click", async () => take([await moving.snap()]));
$("key").addEventListener("change", () => setUp());
$("slider").addEventListener("slide", (event) => {
  $("slider").setAttribute("aria-valuenow", Math.round(event.target.value));
});
window.addEventListener("resize", zoom);
await setUp();
