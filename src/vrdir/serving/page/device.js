// "Restore on this device": the network in a worker. No photo leaves the machine.
import { asset, embedded } from "./assets.js";
import { withMetadata } from "./metadata.js";

const MODULES = ["device-worker.js", "borders.js", "strips.js", "large.js", "fourier.js", "diagnose.js"];

const explained = (reason) => (/alloc|memory/i.test(reason)
  ? "it has too little memory for so many pixels; reduce the photo, or use vrdir serve" : reason);

export class Device {
  #worker = null;
  #waiting = new Map();
  #number = 0;
  opened = null; // a promise of {provider, threads}, once `open` was called

  /** Whether there is a network beside the page (`vrdir web build`). */
  async find() {
    try {
      const answer = await fetch(asset("device.json"));
      if (!answer.ok) return false;
      this.facts = await answer.json();
    } catch {
      return false;
    }
    return this.facts.offered;
  }

  /** Install the service worker: offline use, and threads on hosts that do not send the headers. */
  async install() {
    if (embedded || !("serviceWorker" in navigator)) return;
    try {
      await navigator.serviceWorker.register("sw.js");
    } catch {
      return; // such as a page over http: it works, with one thread and online
    }
    const late = new Promise((done) => { setTimeout(done, 4000); });
    await Promise.race([navigator.serviceWorker.ready, late]);
    if (crossOriginIsolated || sessionStorage.getItem("reloaded")) return;
    sessionStorage.setItem("reloaded", "1"); // once: the worker's answers have the headers
    location.reload();
    await new Promise(() => {});
  }

  /** Load the network now, so that the first photo need not wait for it. */
  open() {
    this.opened ??= new Promise((resolve, reject) => {
      const worker = new Worker(asset("device-worker.js"));
      worker.onmessage = ({ data }) => this.#received(data, resolve, reject);
      worker.onerror = (event) => this.#failed(event.message || "its worker failed", reject);
      const files = Object.fromEntries([...MODULES, "network.bin", ...this.facts.runtime].map((name) => [name, asset(name)]));
      worker.postMessage({ open: { files, facts: this.facts } });
      this.#worker = worker;
    });
    return this.opened;
  }

  /** Restore a file. `maxSide` 0 keeps its size. Returns what the service's `restore` returns. */
  async restore(file, { maxSide = 0, signal = null, onProgress = () => {}, ...options } = {}) {
    const bitmap = await this.#decoded(file, maxSide);
    const type = file.type === "image/jpeg" ? "image/jpeg" : "image/png";
    const found = await this.#ask(bitmap, { ...options, type }, signal, onProgress);
    const fileName = type === file.type ? file.name : `${file.name.replace(/\.[^.]*$/, "")}.png`;
    return { ...found, blob: maxSide ? found.blob : await withMetadata(file, found.blob), fileName };
  }

  /** Restore a frame of a video: an ImageBitmap in, {picture, milliseconds} out. */
  frame(bitmap, options) {
    return this.#ask(bitmap, { ...options, type: "bitmap" }, null, () => {});
  }

  async #decoded(file, maxSide) {
    const whole = await createImageBitmap(file).catch(() => {
      throw new Error(/\.hei[cf]$/i.test(file.name) || /tif/.test(file.type)
        ? "This browser cannot show HEIC or TIFF, so it cannot restore them on this device; vrdir serve can, or save the photo as JPEG"
        : "This is not an image that this browser can read");
    });
    const scale = maxSide ? maxSide / Math.max(whole.width, whole.height) : 1;
    if (scale >= 1) return whole;
    const [resizeWidth, resizeHeight] = [whole.width, whole.height].map((side) => Math.max(1, Math.round(side * scale)));
    const reduced = await createImageBitmap(whole, { resizeWidth, resizeHeight, resizeQuality: "high" });
    whole.close();
    return reduced;
  }

  async #ask(bitmap, { strength = 1, only = [], none = false, type }, signal, onProgress) {
    const names = this.facts.shares;
    const kept = names.map((name) => Number(name === "clean" || (!none && (only.length === 0 || only.includes(name)))));
    await this.open();
    if (signal?.aborted) throw new DOMException("stopped", "AbortError");
    const number = ++this.#number;
    const { shares, ...found } = await new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject, onProgress });
      signal?.addEventListener("abort", () => {
        this.#worker?.postMessage({ stop: number });
        this.#waiting.delete(number);
        reject(new DOMException("stopped", "AbortError"));
      });
      this.#worker.postMessage({ number, bitmap, type, kept, strength: none ? 0 : Number(strength) }, [bitmap]);
    });
    return { ...found, shares: Object.fromEntries(names.map((name, place) => [name, shares[place]])) };
  }

  #received(data, resolve, reject) {
    if (data.opened) return resolve(data.opened);
    if (data.unopened) return this.#failed(data.unopened, reject);
    const job = this.#waiting.get(data.number);
    if (!job) return undefined;
    if (data.progress !== undefined) return job.onProgress(data.progress);
    this.#waiting.delete(data.number);
    if (data.error) return job.reject(new Error(`This device cannot restore the photo: ${explained(data.error)}`));
    return job.resolve(data);
  }

  #failed(reason, reject) {
    const error = new Error(`The network cannot run on this device: ${reason}`);
    reject(error);
    for (const job of this.#waiting.values()) job.reject(error);
    this.#waiting.clear();
    this.#worker?.terminate();
    [this.#worker, this.opened] = [null, null];
  }
}
