// Runs the exported network by onnxruntime-web: WebGPU where there is one, else WASM (SIMD, threads).

let session = null;

async function open(say) {
  const facts = await (await fetch("device.json")).json();
  const ways = [];
  if (facts.webgpu && (await navigator.gpu?.requestAdapter().catch(() => null))) {
    ways.push(["runtime/ort.webgpu.min.mjs", "webgpu"]);
  }
  ways.push(["runtime/ort.wasm.min.mjs", "wasm"]);
  let problem = null;
  for (const [file, provider] of ways) {
    try {
      say(`Loading the network (${(facts.bytes / 2 ** 20).toFixed(1)} MiB), by ${provider} ...`);
      const ort = await import(new URL(file, self.location.href));
      ort.env.wasm.wasmPaths = new URL("runtime/", self.location.href).href;
      ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
      const network = await (await fetch("model.onnx")).arrayBuffer();
      const opened = await ort.InferenceSession.create(new Uint8Array(network), { executionProviders: [provider] });
      return { ort, opened, provider };
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

async function restore({ width, height, rgba }, say) {
  session ??= open(say);
  let network;
  try {
    network = await session;
  } catch (error) {
    session = null;
    throw error;
  }
  const { ort, opened, provider } = network;
  say(`Restoring ${width} x ${height} pixels on this device, by ${provider} ...`);
  const size = width * height;
  const input = new Float32Array(3 * size);
  for (let place = 0; place < size; place++) {
    for (let channel = 0; channel < 3; channel++) input[channel * size + place] = rgba[4 * place + channel] / 255;
  }
  const answer = await opened.run({ image: new ort.Tensor("float32", input, [1, 3, height, width]) });
  const restored = answer.restored.data;
  const pixels = new Uint8ClampedArray(rgba); // with the alpha that came in
  for (let place = 0; place < size; place++) {
    for (let channel = 0; channel < 3; channel++) pixels[4 * place + channel] = Math.round(255 * restored[channel * size + place]);
  }
  return { rgba: pixels, shares: [...answer.shares.data], provider };
}

self.onmessage = async ({ data }) => {
  const { number } = data;
  try {
    const result = await restore(data, (progress) => self.postMessage({ number, progress }));
    self.postMessage({ number, ...result }, [result.rgba.buffer]);
  } catch (error) {
    self.postMessage({ number, error: `This device cannot restore the photo (${error.message ?? error}); use the service` });
  }
};
