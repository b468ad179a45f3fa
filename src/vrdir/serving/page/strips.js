// Restores a photo of any size as vrdir/restoring/strips.py does: each step of the network for the
// whole photo, strip by strip, before the next one. So means and Fourier transforms are those of the
// whole photo, and there are no seams.

const WHOLE = 2 ** 20; // pixels: a photo of no more is one strip
const STRIP = 2 ** 19; // pixels of a strip of a larger one
const KEPT_WHOLE = 2 ** 23; // pixels: maps of larger photos are kept in half precision

/** A map: `channels` planes of height x width. */
export class Planes {
  constructor(channels, height, width, Kind = Float32Array) {
    Object.assign(this, { channels, height, width });
    this.data = new Kind(channels * height * width);
  }

  plane(channel) {
    const size = this.height * this.width;
    return this.data.subarray(channel * size, (channel + 1) * size);
  }

  /** Rows of all planes, as many as there are: {values, channels, height, width}. */
  rows(top, bottom) {
    const { channels, width } = this;
    const [first, last] = [Math.max(top, 0), Math.min(bottom, this.height)];
    const size = (last - first) * width;
    const values = new Float32Array(channels * size);
    for (let channel = 0; channel < channels; channel++) {
      values.set(this.plane(channel).subarray(first * width, last * width), channel * size);
    }
    return { values, channels, height: last - first, width };
  }

  /** Write rows of a result, from its row `skipped` on. */
  write(top, values, skipped, count) {
    const { channels, width } = this;
    const size = values.length / channels;
    for (let channel = 0; channel < channels; channel++) {
      const from = channel * size + skipped * width;
      this.plane(channel).set(values.subarray(from, from + count * width), top * width);
    }
  }
}

/** One map above the other. */
function joined(above, below) {
  if (!above) return below;
  const { channels, width } = below;
  const sizes = [above, below].map((part) => part.height * width);
  const values = new Float32Array(channels * (sizes[0] + sizes[1]));
  for (let channel = 0; channel < channels; channel++) {
    const at = channel * (sizes[0] + sizes[1]);
    values.set(above.values.subarray(channel * sizes[0], (channel + 1) * sizes[0]), at);
    values.set(below.values.subarray(channel * sizes[1], (channel + 1) * sizes[1]), at + sizes[0]);
  }
  return { values, channels, width, height: above.height + below.height };
}

function part(map, from, count) {
  const { channels, width, height, values } = map;
  const cut = new Float32Array(channels * count * width);
  for (let channel = 0; channel < channels; channel++) {
    const start = (channel * height + from) * width;
    cut.set(values.subarray(start, start + count * width), channel * count * width);
  }
  return { values: cut, channels, width, height: count };
}

/** For each place of a padded side, the place of the photo that it shows. */
function padded(length, full, reflects) {
  return Float32Array.from({ length: full }, (_, place) => {
    if (place < length) return place;
    return reflects ? 2 * (length - 1) - place : length - 1;
  });
}

/**
 * One photo on its way through the network.
 *
 * `tools`: run(step, inputs, outputs) runs a step; step(share) is called between strips; read(top,
 * count) gives rows of the photo, RGBA; copy() gives its reduced copy; and the functions of fourier.js.
 */
export class Strips {
  constructor(facts, tools, { width, height, strength, kept }) {
    Object.assign(this, { facts, tools, width, height, strength, kept });
    const { multiple } = facts;
    const up = (length) => Math.ceil(length / multiple) * multiple;
    [this.wide, this.high] = [up(width), up(height)];
    const pixels = this.wide * this.high;
    const rows = Math.max(Math.floor(STRIP / this.wide / multiple), 1) * multiple;
    this.stripRows = pixels <= WHOLE ? this.high : rows;
    this.Kind = pixels > KEPT_WHOLE && globalThis.Float16Array ? globalThis.Float16Array : Float32Array;
    const reflects = this.high - height < height && this.wide - width < width;
    this.down = padded(height, this.high, reflects);
    this.across = padded(width, this.wide, reflects);
    [this.done, this.total] = [0, this.#work()];
  }

  /** All work, in units of the progress: a strip of a step counts by its pixels and channels. */
  #work() {
    const { scales, taps } = this.facts;
    const blocks = scales.reduce((sum, { channels, encoder, decoder }, scale) => (
      sum + (encoder + decoder) * Strips.cost(channels, 2 ** (scale + 1))
    ), 0);
    return BEGIN + END + blocks + taps.reduce((sum, tap) => sum + 2 * Strips.cost(tap.channels, tap.stride), 0);
  }

  static cost(channels, stride) {
    return (channels / stride) ** 2;
  }

  /** Strips of a map with this stride: [first row, row after the last]. */
  strips(stride, atLeast = 0) {
    const step = Math.max(this.stripRows, atLeast);
    const found = [];
    for (let start = 0; start < this.high; start += step) {
      found.push([start / stride, Math.min(start + step, this.high) / stride]);
    }
    return found;
  }

  planes(channels, stride, Kind = this.Kind) {
    return new Planes(channels, this.high / stride, this.wide / stride, Kind);
  }

  async #each(strips, cost, work) {
    for (const strip of strips) {
      await this.tools.step(Math.min(this.done / this.total, 1));
      await work(...strip);
      this.done += cost / strips.length;
    }
  }

  /** Restore; `write(top, count, input, restored)` gets strips of the result. Returns the shares. */
  async restore(write) {
    await this.#findLift();
    const { features, pixels } = await this.#begin();
    const shares = new Float32Array(this.kept.length);
    const guidance = [];
    for (let tap = 0; tap < features.length; tap++) guidance.push(await this.#guide(tap, features[tap], shares));
    const moments = features.map(momentsOf);
    const mixed = (tap, start, stop, x) => this.#mixed({ tap, features: features[tap], guidance: guidance[tap], moments: moments[tap] }, start, stop, x);
    if (this.facts.scales.length) await this.#end(await this.#decoded(pixels, mixed), write);
    else await this.#endFromFeatures(mixed, write);
    return shares;
  }

  // --- The image ------------------------------------------------------------------------------------

  async #findLift() {
    const { context, haze } = this.facts;
    if (!context) return;
    const { side } = context;
    const copy = { values: this.tools.copy(side), channels: 3, height: side, width: side };
    this.lift = await this.tools.run("context", { copy }, context.names);
    const strength = this.strength * (haze === null ? 1 : this.kept[haze]);
    this.lift[context.scaled].data.forEach((value, place, all) => { all[place] = value * strength; });
    if (context.raised) this.lift[context.raised].data.forEach((value, place, all) => { all[place] = value ** strength; });
  }

  /** Rows of the padded photo: before, and without haze. */
  async #pixels(top, bottom) {
    const { wide, width } = this;
    const [first, last] = [Math.max(top, 0), Math.min(bottom, this.high)];
    const lines = this.down.subarray(first, last);
    const [least, most] = [Math.min(...lines), Math.max(...lines)];
    const rgba = this.tools.read(least, most - least + 1);
    const size = lines.length * wide;
    const values = new Float32Array(3 * size);
    lines.forEach((line, y) => {
      for (let x = 0; x < wide; x++) {
        const from = 4 * ((line - least) * width + this.across[x]);
        for (let channel = 0; channel < 3; channel++) values[channel * size + y * wide + x] = rgba[from + channel] / 255;
      }
    });
    const original = { values, channels: 3, height: lines.length, width: wide };
    if (!this.lift) return { original, clear: original };
    const { clear } = await this.tools.run("lift", {
      image: original, ...this.lift, down: lines, across: this.across, size: Float32Array.of(this.height, width),
    }, ["clear"]);
    return { original, clear: { ...original, values: clear.data } };
  }

  async #begin() {
    const { taps, scales, margin } = this.facts;
    const features = taps.map(({ channels, stride }) => this.planes(channels, stride, Float32Array));
    const pixels = scales.length ? this.planes(scales[0].channels, 2) : null;
    const names = [...taps.map((_, tap) => `features${tap}`), ...(pixels ? ["pixels"] : [])];
    await this.#each(this.strips(1, this.stripRows === this.high ? 0 : 3 * margin), BEGIN, async (start, stop) => {
      const top = Math.max(start - margin, 0);
      const answer = await this.tools.run("begin", await this.#pixels(top, stop + margin), names);
      const keep = (planes, stride, values) => planes.write(start / stride, values, (start - top) / stride, (stop - start) / stride);
      taps.forEach(({ stride }, tap) => keep(features[tap], stride, answer[names[tap]].data));
      if (pixels) keep(pixels, 2, answer.pixels.data);
    });
    return { features, pixels };
  }

  // --- Guidance -------------------------------------------------------------------------------------

  /** The guidance maps of a tap (FGM); adds its shares. */
  async #guide(tap, features, shares) {
    const { channels, stride } = this.facts.taps[tap];
    const { height, width } = features;
    const half = Math.floor(width / 2) + 1;
    const cost = Strips.cost(channels, stride) / 2;
    const [real, imaginary] = [0, 1].map(() => new Planes(channels, height, half));
    const semantics = this.planes(channels, stride);
    const every = Array.from({ length: channels }, (_, channel) => [channel]);
    await this.#each(every, cost, async (channel) => {
      const { re, im } = this.tools.spectrumOf(features.plane(channel), width, height);
      real.plane(channel).set(re);
      imaginary.plane(channel).set(im);
    });
    await this.#each(this.strips(stride), 0, async (start, stop) => {
      const given = { real: real.rows(start, stop), imaginary: imaginary.rows(start, stop) };
      const answer = await this.tools.run(`spectrum${tap}`, given, ["changed_real", "changed_imaginary"]);
      real.write(start, answer.changed_real.data, 0, stop - start);
      imaginary.write(start, answer.changed_imaginary.data, 0, stop - start);
    });
    await this.#each(every, cost, async (channel) => {
      const spectrum = { re: real.plane(channel), im: imaginary.plane(channel) };
      semantics.plane(channel).set(this.tools.mapOf(spectrum, width, height));
    });
    const guidance = this.planes(this.kept.length, stride);
    const kept = vector(this.kept);
    await this.#each(this.strips(stride), 0, async (start, stop) => {
      const top = Math.max(start - 1, 0);
      const given = { semantics: semantics.rows(top, stop + 1), kept, rows: [start - top, stop - top] };
      const answer = await this.tools.run(`guide${tap}`, given, ["guidance", "sums"]);
      guidance.write(start, answer.guidance.data, 0, stop - start);
      answer.sums.data.forEach((sum, place) => { shares[place] += sum / (height * width * this.facts.taps.length); });
    });
    return guidance;
  }

  /** Rows of a tap's branches, mixed; with `x`, those rows of the decoder's map, they are added. */
  async #mixed({ tap, features, guidance, moments }, start, stop, x = null) {
    const reach = this.facts.branch_rows;
    const top = Math.max(start - reach, 0);
    const given = { features: features.rows(top, stop + reach), guidance: guidance.rows(top, stop + reach), ...moments };
    if (x) given.x = x.rows(top, stop + reach);
    const { mixed } = await this.tools.run(`mix${tap}`, given, ["mixed"]);
    return { data: mixed.data, skipped: start - top };
  }

  // --- The decoder ----------------------------------------------------------------------------------

  /** A residual block, in place. */
  async #block(name, x, stride) {
    const strips = this.strips(stride);
    const cost = Strips.cost(x.channels, stride) / 2;
    const sums = new Float64Array(x.channels);
    let hidden = null; // of a single strip
    await this.#each(strips, cost, async (start, stop) => {
      const top = Math.max(start - 1, 0);
      const given = { x: x.rows(top, stop + 1), rows: [start - top, stop - top] };
      const answer = await this.tools.run(`${name}.expand`, given, strips.length === 1 ? ["hidden", "sums"] : ["sums"]);
      answer.sums.data.forEach((sum, channel) => { sums[channel] += sum; });
      hidden = answer.hidden;
    });
    const mean = vector(sums.map((sum) => sum / (x.height * x.width)));
    let above = null; // the last rows of the strip before, as they were
    await this.#each(strips, cost, async (start, stop) => {
      const given = joined(above, x.rows(start, stop + 2));
      const top = above?.height ?? 0;
      const values = strips.length === 1 ? hidden.data
        : (await this.tools.run(`${name}.expand`, { x: given, rows: [0, 1] }, ["hidden"])).hidden.data;
      const { y } = await this.tools.run(`${name}.project`, { x: given, hidden: { ...given, values }, mean }, ["y"]);
      const end = top + stop - start;
      above = part(given, Math.max(end - 2, 0), Math.min(end, 2));
      x.write(start, y.data, top, stop - start);
    });
  }

  async #blocks(path, scale, x) {
    for (let number = 0; number < this.facts.scales[scale][path]; number++) {
      await this.#block(`${path}${scale}.${number}`, x, 2 ** (scale + 1));
    }
  }

  /** The decoder's finest map, from the first one of the pixel path. */
  async #decoded(pixels, mixed) {
    const { scales } = this.facts;
    const skips = [];
    let x = pixels;
    for (let scale = 0; scale < scales.length; scale++) {
      await this.#blocks("encoder", scale, x);
      skips.push(x);
      if (scale < scales.length - 1) {
        const coarser = this.planes(scales[scale + 1].channels, 2 ** (scale + 2));
        await this.#each(this.strips(2 ** (scale + 2)), 0, async (start, stop) => {
          const answer = await this.tools.run(`down${scale}`, { finer: x.rows(2 * start, 2 * stop) }, ["coarser"]);
          coarser.write(start, answer.coarser.data, 0, stop - start);
        });
        x = coarser;
      }
    }
    for (let scale = scales.length - 1; scale >= 0; scale--) {
      x = await this.#joined(scale, skips.pop(), x, mixed);
      await this.#blocks("decoder", scale, x);
    }
    return x;
  }

  /** The skip of a scale, with the coarser map and the tap's branches added, in place. */
  async #joined(scale, skip, coarser, mixed) {
    const { scales } = this.facts;
    const stride = 2 ** (scale + 1);
    if (scale < scales.length - 1) {
      await this.#each(this.strips(stride), 0, async (start, stop) => {
        const given = { coarser: coarser.rows(start / 2, stop / 2), skip: skip.rows(start, stop) };
        skip.write(start, (await this.tools.run(`up${scale}`, given, ["x"])).x.data, 0, stop - start);
      });
    }
    const { tap } = scales[scale];
    if (tap !== null) {
      await this.#each(this.strips(stride), Strips.cost(this.facts.taps[tap].channels, stride), async (start, stop) => {
        const { data, skipped } = await mixed(tap, start, stop, skip);
        skip.write(start, data, skipped, stop - start);
      });
    }
    return skip;
  }

  // --- The result -----------------------------------------------------------------------------------

  /** The strength of the local network: with an unveiling context, haze alone is no work for it. */
  #local() {
    const { haze, clean, unveils } = this.facts;
    const others = this.kept.filter((_, place) => place !== haze && place !== clean);
    return vector([this.strength * (unveils ? Math.max(...others) : 1)]);
  }

  async #end(x, write) {
    const strength = this.#local();
    await this.#each(this.strips(2), END, async (start, stop) => {
      const top = Math.max(start - 1, 0);
      const { original, clear } = await this.#pixels(2 * start, 2 * stop);
      const given = { x: x.rows(top, stop + 1), rows: [start - top, stop - top], clear, strength };
      const { restored } = await this.tools.run("end", given, ["restored"]);
      write(2 * start, original, restored.data);
    });
  }

  /** The result of the paper's decoder, whose convolutions see two rows of features. */
  async #endFromFeatures(mixed, write) {
    const strength = this.#local();
    await this.#each(this.strips(2), END, async (start, stop) => {
      const [top, bottom] = [Math.max(start - 2, 0), Math.min(stop + 2, this.high / 2)];
      const { data, skipped } = await mixed(0, top, bottom);
      const { channels } = this.facts.taps[0];
      const width = this.wide / 2;
      const all = { values: data, channels, width, height: data.length / channels / width };
      const [{ clear }, { original }] = [await this.#pixels(2 * top, 2 * bottom), await this.#pixels(2 * start, 2 * stop)];
      const { restored } = await this.tools.run("end", { features: part(all, skipped, bottom - top), clear, strength }, ["restored"]);
      const result = { values: restored.data, channels: 3, width: this.wide, height: 2 * (bottom - top) };
      write(2 * start, original, part(result, 2 * (start - top), 2 * (stop - start)).values);
    });
  }
}

const [BEGIN, END] = [300, 40]; // as `Strips.cost`: about what these steps take

/** Values as a map of one position. */
function vector(values) {
  return { values: Float32Array.from(values), channels: values.length, height: 1, width: 1 };
}

/** Mean and variance of each plane. */
function momentsOf(features) {
  const size = features.height * features.width;
  const [means, variances] = [[], []];
  for (let channel = 0; channel < features.channels; channel++) {
    let [sum, squares] = [0, 0];
    for (const value of features.plane(channel)) sum += value;
    const mean = sum / size;
    for (const value of features.plane(channel)) squares += (value - mean) ** 2;
    means.push(mean);
    variances.push(squares / size);
  }
  return { mean: vector(means), variance: vector(variances) };
}

/** The copy of the whole photo that a network with a global context sees: (3, side, side). */
export class Copy {
  constructor(side, width, height) {
    this.side = side;
    this.values = new Float32Array(3 * side * side);
    this.across = spread(width, side);
    this.down = spread(height, side);
  }

  /** Add rows of the photo, RGBA, from row `top` on. */
  add(rgba, width, top, count) {
    const { side, values } = this;
    const row = new Float32Array(3 * side);
    for (let y = 0; y < count; y++) {
      row.fill(0);
      for (let x = 0; x < width; x++) {
        const from = 4 * (y * width + x);
        for (const [column, weight] of this.across[x]) {
          for (let channel = 0; channel < 3; channel++) row[channel * side + column] += (weight * rgba[from + channel]) / 255;
        }
      }
      for (const [line, weight] of this.down[top + y]) {
        for (let channel = 0; channel < 3; channel++) {
          for (let x = 0; x < side; x++) values[(channel * side + line) * side + x] += weight * row[channel * side + x];
        }
      }
    }
  }
}

/** For each place before, the places after that it counts for: antialiased bilinear resampling. */
function spread(before, after) {
  const found = Array.from({ length: before }, () => []);
  const scale = before / after;
  const reach = Math.max(scale, 1);
  for (let place = 0; place < after; place++) {
    const middle = (place + 0.5) * scale;
    const weights = [];
    for (let at = Math.max(0, Math.floor(middle - reach - 1)); at < Math.min(before, middle + reach + 1); at++) {
      const weight = 1 - Math.abs(middle - at - 0.5) / reach;
      if (weight > 0) weights.push([at, weight]);
    }
    const total = weights.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [at, weight] of weights) found[at].push([place, weight / total]);
  }
  return found;
}
