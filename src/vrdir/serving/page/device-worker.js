// Runs the network by onnxruntime-web: WebGPU where there is one, else WASM (SIMD, threads).
// Messages: {open} once; {restore} for each photo; {stop} to end one between two of its tiles.

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
  const network = await bytesOf("model.onnx");
  let problem = null;
  for (const [provider, script, binary] of ways) {
    try {
      const ort = await import(files[`runtime/${script}`]);
      ort.env.wasm.wasmPaths = { mjs: files[`runtime/${binary}.mjs`] };
      ort.env.wasm.wasmBinary = await bytesOf(`runtime/${binary}.wasm.gz`);
      ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
      const session = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: [provider] });
      return { ort, session, provider, threads: ort.env.wasm.numThreads };
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

/** Restore one tile: RGBA in and out, with what the network found. */
async function restoreTile({ ort, session }, pixels, tile, given) {
  const { width, height } = tile;
  const size = width * height;
  const input = new Float32Array(3 * size);
  for (let place = 0; place < size; place++) {
    for (let channel = 0; channel < 3; channel++) input[channel * size + place] = pixels[4 * place + channel] / 255;
  }
  const vector = (values) => new ort.Tensor("float32", Float32Array.from(values), [values.length]);
  const feeds = {
    image: new ort.Tensor("float32", input, [1, 3, height, width]),
    strength: vector([given.strength]),
    kept: vector(given.kept),
    moments: vector(given.moments ?? new Float32Array(facts.moments)),
    own: vector([given.moments ? 0 : 1]),
  };
  if (given.copy) {
    feeds.copy = new ort.Tensor("float32", given.copy.values, [1, 3, given.copy.side, given.copy.side]);
    feeds.place = vector([tile.top, tile.left, given.height, given.width]);
  }
  const answer = await session.run(feeds);
  return { input, restored: answer.restored.data, shares: answer.shares.data, found: answer.found.data };
}

class Photo {
  constructor(bitmap) {
    this.bitmap = bitmap;
    [this.width, this.height] = [bitmap.width, bitmap.height];
  }

  read({ left, top, width, height }) {
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  copy(side) {
    const copy = new parts.Copy(side, this.width, this.height);
    for (let top = 0; top < this.height; top += 256) {
      const rows = Math.min(256, this.height - top);
      copy.add(this.read({ left: 0, top, width: this.width, height: rows }), this.width, top, rows);
    }
    return copy;
  }
}

/** What was removed from the middle of the photo, and how much was changed in all of it. */
class Removed {
  constructor(width, height, strength) {
    this.strength = strength;
    this.left = Math.max(0, Math.floor((width - parts.WINDOW) / 2));
    this.top = Math.max(0, Math.floor((height - parts.WINDOW) / 2));
    [this.width, this.height] = [Math.min(width, parts.WINDOW), Math.min(height, parts.WINDOW)];
    this.values = new Float32Array(this.width * this.height);
    [this.sum, this.count] = [0, 0];
  }

  add(tile, input, restored) {
    for (let place = 0; place < input.length; place++) this.sum += Math.abs(restored[place] - input[place]);
    this.count += input.length;
    const green = tile.width * tile.height;
    for (let y = Math.max(this.top, tile.top); y < Math.min(this.top + this.height, tile.top + tile.height); y++) {
      for (let x = Math.max(this.left, tile.left); x < Math.min(this.left + this.width, tile.left + tile.width); x++) {
        const from = green + (y - tile.top) * tile.width + x - tile.left;
        this.values[(y - this.top) * this.width + x - this.left] = (input[from] - restored[from]) / this.strength;
      }
    }
  }

  diagnosis() {
    const changed = (255 * this.sum) / this.count;
    // With a global context the middle is compared after the context's own step, which is not known here.
    const known = this.strength > 0 && !facts.context_side;
    const found = known ? parts.noiseAndRain(this.values, this.width, this.height) : { noise: null, rain: null };
    return { haze: null, ...found, changed };
  }
}

async function restore({ number, bitmap, strength, kept, type }) {
  const network = await open();
  const photo = new Photo(bitmap);
  const tiles = parts.tilesOf(photo.width, photo.height);
  const measured = tiles.length > 1 ? parts.measuredOf(tiles) : [];
  const given = { strength, kept, width: photo.width, height: photo.height };
  if (facts.context_side) given.copy = photo.copy(facts.context_side);
  const canvas = new OffscreenCanvas(photo.width, photo.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const removed = new Removed(photo.width, photo.height, strength);
  const shares = new Float32Array(facts.shares.length);
  const steps = measured.length + tiles.length;
  let done = 0;
  const step = async () => {
    self.postMessage({ number, progress: done / steps });
    done++;
    await breath();
    if (stopped.delete(number)) throw new DOMException("stopped", "AbortError");
  };
  const means = new Float32Array(facts.moments);
  for (const tile of measured) {
    await step();
    const { found } = await restoreTile(network, photo.read(tile), tile, given);
    found.forEach((value, place) => { means[place] += value / measured.length; });
  }
  if (measured.length) given.moments = means;
  for (const tile of tiles) {
    await step();
    const pixels = photo.read(tile);
    const answer = await restoreTile(network, pixels, tile, given);
    const size = tile.width * tile.height;
    for (let place = 0; place < size; place++) {
      for (let channel = 0; channel < 3; channel++) pixels[4 * place + channel] = Math.round(255 * answer.restored[channel * size + place]);
    }
    removed.add(tile, answer.input, answer.restored);
    parts.place(context, tile, pixels);
    answer.shares.forEach((share, place) => { shares[place] += share / tiles.length; });
  }
  photo.bitmap.close();
  const { provider, threads } = network;
  const result = { width: photo.width, height: photo.height, shares: [...shares], diagnosis: removed.diagnosis(), provider, threads, tiles: tiles.length };
  if (type === "bitmap") return { ...result, picture: canvas.transferToImageBitmap() };
  return { ...result, blob: await canvas.convertToBlob({ type, quality: 0.95 }) };
}

self.onmessage = ({ data }) => {
  if (data.open) {
    ({ files, facts } = data.open);
    queue = Promise.all([import(files["tiles.js"]), import(files["diagnose.js"])])
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
