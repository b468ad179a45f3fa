// Runs the network by onnxruntime-web: WebGPU where there is one, else WASM (SIMD, threads).
// Messages: {open} once; {restore} for each photo; {stop} to end one between two of its steps.

const ROWS = 256; // of a large photo, that are finished at once
const OFTEN = 50; // milliseconds between two reports of progress, where a photo can also be stopped

let files = null; // the addresses of the page's files
let facts = null;
let parts = null; // the page's modules
let opening = null;
let queue = Promise.resolve(); // one photo after the other
const stopped = new Set();

async function bytesOf(name) {
  const answer = await fetch(files[name]);
  if (!answer.ok) throw new Error(`${name} is missing (${answer.status})`);
  const content = await answer.arrayBuffer();
  const [first, second] = new Uint8Array(content, 0, 2);
  if (first !== 0x1f || second !== 0x8b) return content; // a host may have unpacked it on the way
  return new Response(new Blob([content]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

async function openNetwork() {
  const ways = [["wasm", "ort.wasm.min.mjs", "ort-wasm-simd-threaded"]];
  if (facts.webgpu && (await navigator.gpu?.requestAdapter().catch(() => null))) {
    ways.unshift(["webgpu", "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify"]);
  }
  const network = new Uint8Array(await bytesOf("network.bin"));
  let problem = null;
  for (const [provider, script, binary] of ways) {
    try {
      const ort = await import(files[`runtime/${script}`]);
      ort.env.wasm.wasmPaths = { mjs: files[`runtime/${binary}.mjs`] };
      ort.env.wasm.wasmBinary = await bytesOf(`runtime/${binary}.wasm.gz`);
      ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
      const sessions = {};
      for (const [step, [start, end]] of Object.entries(facts.steps)) {
        sessions[step] = await ort.InferenceSession.create(network.slice(start, end), { executionProviders: [provider] });
      }
      return { ort, sessions, provider, threads: ort.env.wasm.numThreads };
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

async function open() {
  opening ??= openNetwork().catch((error) => {
    opening = null;
    throw error;
  });
  return opening;
}

const breath = () => new Promise((done) => { setTimeout(done); }); // lets {stop} in

/** Run a step of the network: maps {values, channels, height, width} and vectors in, tensors out. */
function run({ ort, sessions }, step, inputs, outputs) {
  const feeds = Object.fromEntries(Object.entries(inputs).map(([name, value]) => {
    if (value instanceof ort.Tensor) return [name, value];
    if (Array.isArray(value)) return [name, new ort.Tensor("int32", Int32Array.from(value), [value.length])];
    if (value instanceof Float32Array) return [name, new ort.Tensor("float32", value, [value.length])];
    const { values, channels, height, width } = value;
    return [name, new ort.Tensor("float32", values, [1, channels, height, width])];
  }));
  return sessions[step].run(feeds, outputs);
}

class Photo {
  constructor(bitmap) {
    this.bitmap = bitmap;
    this.inner = { left: 0, top: 0, width: bitmap.width, height: bitmap.height };
    this.inner = parts.insideBorders(bitmap.width, bitmap.height, (part) => this.read(part));
  }

  /** The RGBA of a part {left, top, width, height}. */
  read({ left, top, width, height }) {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  /** The RGBA of rows inside the borders. */
  rows(top, height) {
    return this.read({ ...this.inner, top: this.inner.top + top, height });
  }

  copy(side) {
    const { width, height } = this.inner;
    const copy = new parts.Copy(side, width, height);
    for (let top = 0; top < height; top += 256) {
      const count = Math.min(256, height - top);
      copy.add(this.rows(top, count), width, top, count);
    }
    return copy.values;
  }
}

/** What was removed from the middle of the photo, and how much was changed in all of it. */
class Removed {
  constructor(width, height, strength) {
    [this.strength, this.count] = [strength, 3 * width * height];
    this.left = Math.max(0, Math.floor((width - parts.WINDOW) / 2));
    this.top = Math.max(0, Math.floor((height - parts.WINDOW) / 2));
    [this.width, this.height] = [Math.min(width, parts.WINDOW), Math.min(height, parts.WINDOW)];
    this.values = new Float32Array(this.width * this.height);
    this.sum = 0;
  }

  /** Add a part {left, top, width, height}; `input` and `restored` are (3, rows, wide), padded. */
  add(part, input, restored, wide) {
    const plane = restored.length / 3;
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < part.height; y++) {
        const row = channel * plane + y * wide;
        for (let x = row; x < row + part.width; x++) this.sum += Math.abs(restored[x] - input[x]);
      }
    }
    for (let y = Math.max(this.top, part.top); y < Math.min(this.top + this.height, part.top + part.height); y++) {
      for (let x = Math.max(this.left, part.left); x < Math.min(this.left + this.width, part.left + part.width); x++) {
        const from = plane + (y - part.top) * wide + x - part.left; // of the green
        this.values[(y - this.top) * this.width + x - this.left] = (input[from] - restored[from]) / this.strength;
      }
    }
  }

  diagnosis() {
    const changed = (255 * this.sum) / this.count;
    // With a global context the middle is compared after the context's own step, which is not known here.
    const known = this.strength > 0 && !facts.context;
    const found = known ? parts.noiseAndRain(this.values, this.width, this.height) : { noise: null, rain: null };
    return { haze: null, ...found, changed };
  }
}

/** Draw a part of the result into the canvas; what is transparent stays so. */
function draw(context, photo, part, restored, wide) {
  const { left, top, width, height } = part;
  const pixels = photo.read(part);
  const plane = restored.length / 3;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const to = 4 * (y * width + x);
      for (let channel = 0; channel < 3; channel++) pixels[to + channel] = 255 * restored[channel * plane + y * wide + x]; // rounded
    }
  }
  context.putImageData(new ImageData(pixels, width, height), left, top);
}

/** Write `count` rows of a result, which is padded to a width, into planes from row `top` on. */
function keep(planes, top, count, restored, wide) {
  const plane = restored.length / 3;
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < count; y++) {
      const start = channel * plane + y * wide;
      planes.plane(channel).set(restored.subarray(start, start + planes.width), (top + y) * planes.width);
    }
  }
}

/** Restore inside the borders; show(top, rows, input, restored, wide) gets all of its rows. */
async function restoreInside(photo, tools, how, show) {
  const strips = new parts.Strips(facts, tools, how);
  const rowsOf = (top, restored) => Math.min(restored.length / 3 / strips.wide, how.height - top);
  const size = parts.copySize(how.width, how.height);
  if (!size) {
    return strips.restore((top, { values }, restored) => show(top, rowsOf(top, restored), values, restored, strips.wide));
  }
  const { width, height } = how;
  const full = new parts.Planes(3, height, width, strips.Kind);
  const [before, found] = [0, 1].map(() => new parts.Reduced(size, width, height));
  let changed = false;
  const shares = await strips.restore((top, { values }, restored) => {
    const count = rowsOf(top, restored);
    const plane = restored.length / 3;
    const pixel = (from) => (channel, y, x) => from[channel * plane + y * strips.wide + x];
    before.add(top, count, pixel(values));
    found.add(top, count, pixel(restored));
    changed ||= restored.some((value, at) => value !== values[at]);
    keep(full, top, count, restored, strips.wide);
  });
  const maps = changed ? new parts.Maps(await mapsOf(before.finished(), found.finished(), size, tools, how), size, width, height) : null;
  for (let top = 0; top < height; top += ROWS) {
    const count = Math.min(ROWS, height - top);
    const { values } = full.rows(top, top + count);
    for (let channel = 0; maps && channel < 3; channel++) {
      for (let y = 0; y < count; y++) {
        maps.apply(channel, top + y, values.subarray((channel * count + y) * width, (channel * count + y + 1) * width));
      }
    }
    show(top, count, planesOf(photo.rows(top, count)), values, width);
  }
  return shares;
}

/** The affine maps by which a large photo follows its copy: its planes before, and as `found`. */
async function mapsOf(before, found, size, tools, how) {
  const area = size.width * size.height;
  const read = (top, count) => {
    const rgba = new Float32Array(4 * count * size.width);
    for (let at = 0; at < count * size.width; at++) {
      for (let channel = 0; channel < 3; channel++) rgba[4 * at + channel] = 255 * before[channel * area + top * size.width + at];
    }
    return rgba;
  };
  const copy = (side) => {
    const smaller = new parts.Copy(side, size.width, size.height);
    smaller.add(read(0, size.height), size.width, 0, size.height);
    return smaller.values;
  };
  const strips = new parts.Strips(facts, { ...tools, read, copy, step: () => tools.step(1) }, { ...how, ...size });
  const wanted = new parts.Planes(3, size.height, size.width, Float32Array);
  await strips.restore((top, _, restored) => {
    keep(wanted, top, Math.min(restored.length / 3 / strips.wide, size.height - top), restored, strips.wide);
  });
  return parts.affineMaps(found, wanted.data, size);
}

/** The planes (3, rows, width) of RGBA rows, in [0, 1]. */
function planesOf(rgba) {
  const area = rgba.length / 4;
  const planes = new Float32Array(3 * area);
  for (let at = 0; at < area; at++) {
    for (let channel = 0; channel < 3; channel++) planes[channel * area + at] = rgba[4 * at + channel] / 255;
  }
  return planes;
}

async function restore({ number, bitmap, strength, kept, type }) {
  const network = await open();
  const photo = new Photo(bitmap);
  const [{ width, height }, { inner }] = [bitmap, photo];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const removed = new Removed(width, height, strength);
  let told = performance.now() - OFTEN;
  const tools = {
    run: (...step) => run(network, ...step),
    read: (top, count) => photo.rows(top, count),
    copy: (side) => photo.copy(side),
    spectrumOf: parts.spectrumOf,
    mapOf: parts.mapOf,
    step: async (progress) => {
      if (performance.now() - told < OFTEN) return;
      told = performance.now();
      self.postMessage({ number, progress });
      await breath();
      if (stopped.delete(number)) throw new DOMException("stopped", "AbortError");
    },
  };
  const show = (top, height, input, restored, wide) => {
    const part = { ...inner, top: inner.top + top, height };
    draw(context, photo, part, restored, wide);
    removed.add(part, input, restored, wide);
  };
  const shares = await restoreInside(photo, tools, { width: inner.width, height: inner.height, strength, kept }, show);
  bitmap.close();
  const { provider, threads } = network;
  const result = { width, height, shares: [...shares], diagnosis: removed.diagnosis(), provider, threads };
  if (type === "bitmap") return { ...result, picture: canvas.transferToImageBitmap() };
  return { ...result, blob: await canvas.convertToBlob({ type, quality: 0.95 }) };
}

self.onmessage = ({ data }) => {
  if (data.open) {
    ({ files, facts } = data.open);
    queue = Promise.all(["borders.js", "strips.js", "large.js", "fourier.js", "diagnose.js"].map((name) => import(files[name])))
      .then((modules) => { parts = Object.assign({}, ...modules); return open(); })
      .then(({ provider, threads }) => self.postMessage({ opened: { provider, threads } }))
      .catch((error) => self.postMessage({ unopened: String(error.message ?? error) }));
  } else if (data.stop) {
    stopped.add(data.stop);
  } else {
    queue = queue.then(async () => {
      const { number } = data;
      try {
        if (stopped.delete(number)) throw new DOMException("stopped", "AbortError");
        const start = performance.now();
        const result = await restore(data);
        self.postMessage({ number, ...result, milliseconds: performance.now() - start }, result.picture ? [result.picture] : []);
      } catch (error) {
        const stop = error.name === "AbortError";
        self.postMessage({ number, stop, error: String(error.message ?? error) });
      } finally {
        stopped.delete(number);
      }
    });
  }
};
