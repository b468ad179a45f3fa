// "Restore on this device": the exported network in a worker. No photo leaves the machine.

export class Device {
  #worker = null;
  #waiting = new Map();
  #number = 0;

  /** Whether there is a network beside the page (`vrdir web build`). */
  async find() {
    try {
      const answer = await fetch("device.json");
      if (!answer.ok) return false;
      this.facts = await answer.json();
      if (!this.facts.offered) return false;
    } catch {
      return false;
    }
    if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => {});
    return true;
  }

  /** Restore a file. Strength and `only` are not offered: the exported network has neither. */
  async restore(file, { maxSide = 0, signal = null, onProgress = () => {} } = {}) {
    const source = await createImageBitmap(file).catch(() => {
      throw new Error("This browser cannot read the file as an image; HEIC and TIFF need the service");
    });
    const most = maxSide || this.facts.max_side;
    const scale = Math.min(1, most / Math.max(source.width, source.height));
    const canvas = new OffscreenCanvas(
      Math.max(1, Math.round(source.width * scale)), Math.max(1, Math.round(source.height * scale)),
    );
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const { rgba, shares } = await this.#ask(pixels, signal, onProgress);
    context.putImageData(new ImageData(rgba, canvas.width, canvas.height), 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" });
    const fileName = file.name.replace(/\.[^.]*$/, "") + ".png";
    const named = Object.fromEntries(this.facts.shares.map((name, place) => [name, shares[place]]));
    return { blob, shares: named, diagnosis: null, fileName };
  }

  #ask(pixels, signal, onProgress) {
    this.#worker ??= this.#start();
    const number = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject, onProgress });
      signal?.addEventListener("abort", () => {
        this.#waiting.delete(number);
        reject(new DOMException("stopped", "AbortError"));
      });
      const { width, height, data } = pixels;
      this.#worker.postMessage({ number, width, height, rgba: data }, [data.buffer]);
    });
  }

  #start() {
    const worker = new Worker("device-worker.js", { type: "module" });
    worker.onmessage = ({ data }) => {
      const job = this.#waiting.get(data.number);
      if (!job) return;
      if (data.progress) {
        job.onProgress(data.progress);
        return;
      }
      this.#waiting.delete(data.number);
      if (data.error) job.reject(new Error(data.error));
      else job.resolve(data);
    };
    worker.onerror = (event) => {
      for (const job of this.#waiting.values()) job.reject(new Error(event.message || "the worker failed"));
      this.#waiting.clear();
      this.#worker = null;
    };
    return worker;
  }
}
