// Fourier transforms of maps of any size, as torch.fft.rfft2 and irfft2 with norm="ortho".
// Columns are transformed side by side, so that the inner loops run over neighbouring values.

const SIDE_BY_SIDE = 16; // columns: so many of 4000 values stay in a processor's cache
const LARGEST_FACTOR = 13; // lengths with a larger prime factor go by Bluestein's way
const plans = new Map();

function factorsOf(length) {
  const factors = [];
  let rest = length;
  for (const factor of [4, 2, 3, 5, 7, 11, 13]) {
    while (rest % factor === 0) {
      factors.push(factor);
      rest /= factor;
    }
  }
  return rest === 1 ? factors : null;
}

/** exp(-2 pi i k / n) for all k below n: [cosines, sines]. */
function turns(length) {
  const [cos, sin] = [new Float64Array(length), new Float64Array(length)];
  for (let k = 0; k < length; k++) {
    cos[k] = Math.cos((2 * Math.PI * k) / length);
    sin[k] = -Math.sin((2 * Math.PI * k) / length);
  }
  return [cos, sin];
}

/** Transforms `count` columns of one length, in place: re and im have `length` rows of `count`. */
class Columns {
  constructor(length, count) {
    [this.length, this.count] = [length, count];
    this.factors = factorsOf(length);
    if (this.factors) {
      this.spare = [0, 1].map(() => new Float64Array(length * count));
      this.turns = turns(length);
    } else {
      this.#prepareBluestein();
    }
  }

  transform(re, im) {
    if (this.factors) this.#mixed(re, im);
    else this.#bluestein(re, im);
  }

  /** Stockham's algorithm: each pass takes one factor, and leaves the values in order. */
  #mixed(re, im) {
    const { length, count, factors } = this;
    const [cos, sin] = this.turns;
    let [from, to] = [[re, im], this.spare];
    let before = 1; // product of the factors that are done
    for (const factor of factors) {
      const block = (length / (before * factor)) * count; // values that are treated alike
      for (let done = 0; done < before; done++) {
        const source = done * factor * block;
        const step = before * block; // between the targets
        const turn = (length / (before * factor)) * done;
        if (factor === 4) this.#four(from, to, source, done * block, block, step, turn);
        else this.#any(from, to, source, done * block, block, step, turn, factor);
      }
      [from, to] = [to, from];
      before *= factor;
    }
    if (from[0] !== re) {
      re.set(from[0]);
      im.set(from[1]);
    }
  }

  #four([fromRe, fromIm], [toRe, toIm], source, target, block, step, turn) {
    const [cos, sin] = this.turns;
    const [c1, s1, c2, s2, c3, s3] = [cos[turn], sin[turn], cos[2 * turn], sin[2 * turn], cos[3 * turn], sin[3 * turn]];
    for (let place = 0; place < block; place++) {
      const at = source + place;
      const [a0, b0] = [fromRe[at], fromIm[at]];
      let [a, b] = [fromRe[at + block], fromIm[at + block]];
      const [a1, b1] = [c1 * a - s1 * b, c1 * b + s1 * a];
      [a, b] = [fromRe[at + 2 * block], fromIm[at + 2 * block]];
      const [a2, b2] = [c2 * a - s2 * b, c2 * b + s2 * a];
      [a, b] = [fromRe[at + 3 * block], fromIm[at + 3 * block]];
      const [a3, b3] = [c3 * a - s3 * b, c3 * b + s3 * a];
      const to = target + place;
      [toRe[to], toIm[to]] = [a0 + a1 + a2 + a3, b0 + b1 + b2 + b3];
      [toRe[to + step], toIm[to + step]] = [a0 + b1 - a2 - b3, b0 - a1 - b2 + a3];
      [toRe[to + 2 * step], toIm[to + 2 * step]] = [a0 - a1 + a2 - a3, b0 - b1 + b2 - b3];
      [toRe[to + 3 * step], toIm[to + 3 * step]] = [a0 - b1 - a2 + b3, b0 + a1 - b2 - a3];
    }
  }

  #any([fromRe, fromIm], [toRe, toIm], source, target, block, step, turn, factor) {
    const [cos, sin] = this.turns;
    for (let out = 0; out < factor; out++) {
      const to = target + out * step;
      for (let part = 0; part < factor; part++) {
        const at = source + part * block;
        const angle = (part * turn + ((out * part) % factor) * (this.length / factor)) % this.length;
        const [c, s] = [cos[angle], sin[angle]];
        if (part === 0) {
          for (let place = 0; place < block; place++) {
            toRe[to + place] = fromRe[at + place];
            toIm[to + place] = fromIm[at + place];
          }
          continue;
        }
        for (let place = 0; place < block; place++) {
          const [a, b] = [fromRe[at + place], fromIm[at + place]];
          toRe[to + place] += c * a - s * b;
          toIm[to + place] += c * b + s * a;
        }
      }
    }
  }

  /** Bluestein: as a convolution, by transforms of a power of two. */
  #prepareBluestein() {
    const { length, count } = this;
    this.wide = 2 ** Math.ceil(Math.log2(2 * length - 1));
    this.inner = new Columns(this.wide, count);
    this.chirp = [new Float64Array(length), new Float64Array(length)];
    for (let k = 0; k < length; k++) {
      const angle = (Math.PI * ((k * k) % (2 * length))) / length;
      [this.chirp[0][k], this.chirp[1][k]] = [Math.cos(angle), -Math.sin(angle)];
    }
    const one = new Columns(this.wide, 1);
    this.kernel = [new Float64Array(this.wide), new Float64Array(this.wide)];
    for (let k = 0; k < length; k++) {
      for (const place of [k, (this.wide - k) % this.wide]) {
        this.kernel[0][place] = this.chirp[0][k];
        this.kernel[1][place] = -this.chirp[1][k];
      }
    }
    one.transform(...this.kernel);
    this.work = [0, 1].map(() => new Float64Array(this.wide * count));
  }

  #bluestein(re, im) {
    const { length, count, wide } = this;
    const [workRe, workIm] = this.work;
    workRe.fill(0);
    workIm.fill(0);
    multiplied(re, im, ...this.chirp, workRe, workIm, length, count);
    this.inner.transform(workRe, workIm);
    multiplied(workRe, workIm, ...this.kernel, workRe, workIm, wide, count);
    this.inner.transform(workIm, workRe); // swapped: the inverse
    for (let place = 0; place < length * count; place++) {
      workRe[place] /= wide;
      workIm[place] /= wide;
    }
    multiplied(workRe, workIm, ...this.chirp, re, im, length, count);
  }
}

/** Multiply each row of columns by one complex number. */
function multiplied(re, im, cos, sin, toRe, toIm, length, count) {
  for (let row = 0; row < length; row++) {
    const [c, s] = [cos[row], sin[row]];
    for (let place = row * count; place < (row + 1) * count; place++) {
      const [a, b] = [re[place], im[place]];
      toRe[place] = c * a - s * b;
      toIm[place] = c * b + s * a;
    }
  }
}

function columnsOf(length) {
  if (!plans.has(length)) plans.set(length, new Columns(length, SIDE_BY_SIDE));
  return plans.get(length);
}

const buffers = (length) => [0, 1].map(() => new Float64Array(length * SIDE_BY_SIDE));

/** The spectrum {re, im} of a real map, row by row; each row has width / 2 + 1 frequencies. */
export function spectrumOf(values, width, height) {
  const half = Math.floor(width / 2) + 1;
  const [re, im] = [new Float32Array(height * half), new Float32Array(height * half)];
  const [a, b] = buffers(width);
  const plan = columnsOf(width);
  const scale = 1 / Math.sqrt(width * height);
  // Two rows as one complex row: their spectra are its even and its odd part.
  for (let first = 0; first < height; first += 2 * SIDE_BY_SIDE) {
    for (let column = 0; column < SIDE_BY_SIDE; column++) {
      const [one, two] = [first + 2 * column, first + 2 * column + 1];
      for (let x = 0; x < width; x++) {
        a[x * SIDE_BY_SIDE + column] = one < height ? values[one * width + x] : 0;
        b[x * SIDE_BY_SIDE + column] = two < height ? values[two * width + x] : 0;
      }
    }
    plan.transform(a, b);
    for (let column = 0; column < SIDE_BY_SIDE; column++) {
      const [one, two] = [first + 2 * column, first + 2 * column + 1];
      for (let k = 0; k < half; k++) {
        const [here, there] = [k, (width - k) % width].map((at) => at * SIDE_BY_SIDE + column);
        const [p, q, r, s] = [a[here], b[here], a[there], b[there]];
        if (one < height) {
          re[one * half + k] = (p + r) / 2;
          im[one * half + k] = (q - s) / 2;
        }
        if (two < height) {
          re[two * half + k] = (q + s) / 2;
          im[two * half + k] = (r - p) / 2;
        }
      }
    }
  }
  alongColumns(re, im, half, height, scale);
  return { re, im };
}

/** The real map of a spectrum, which is changed. */
export function mapOf({ re, im }, width, height) {
  const half = Math.floor(width / 2) + 1;
  const values = new Float32Array(width * height);
  alongColumns(im, re, half, height, 1 / Math.sqrt(width * height)); // swapped: the inverse
  const [a, b] = buffers(width);
  const plan = columnsOf(width);
  for (let first = 0; first < height; first += 2 * SIDE_BY_SIDE) {
    for (let column = 0; column < SIDE_BY_SIDE; column++) {
      const [one, two] = [first + 2 * column, first + 2 * column + 1];
      for (let k = 0; k < half; k++) {
        // The first and the middle frequency of a real row have no imaginary part.
        const own = k === 0 || 2 * k === width ? 0 : 1;
        const [p, q] = one < height ? [re[one * half + k], own * im[one * half + k]] : [0, 0];
        const [r, s] = two < height ? [re[two * half + k], own * im[two * half + k]] : [0, 0];
        const here = k * SIDE_BY_SIDE + column;
        [a[here], b[here]] = [p - s, q + r];
        if (own) {
          const there = (width - k) * SIDE_BY_SIDE + column;
          [a[there], b[there]] = [p + s, r - q];
        }
      }
    }
    plan.transform(b, a);
    for (let column = 0; column < SIDE_BY_SIDE; column++) {
      const [one, two] = [first + 2 * column, first + 2 * column + 1];
      for (let x = 0; x < width; x++) {
        if (one < height) values[one * width + x] = a[x * SIDE_BY_SIDE + column];
        if (two < height) values[two * width + x] = b[x * SIDE_BY_SIDE + column];
      }
    }
  }
  return values;
}

/** Transform the columns of a complex map in place, and scale it. */
function alongColumns(re, im, width, height, scale) {
  const [a, b] = buffers(height);
  const plan = columnsOf(height);
  for (let left = 0; left < width; left += SIDE_BY_SIDE) {
    const count = Math.min(SIDE_BY_SIDE, width - left);
    for (let y = 0; y < height; y++) {
      for (let column = 0; column < count; column++) {
        a[y * SIDE_BY_SIDE + column] = re[y * width + left + column];
        b[y * SIDE_BY_SIDE + column] = im[y * width + left + column];
      }
    }
    plan.transform(a, b);
    for (let y = 0; y < height; y++) {
      for (let column = 0; column < count; column++) {
        re[y * width + left + column] = a[y * SIDE_BY_SIDE + column] * scale;
        im[y * width + left + column] = b[y * SIDE_BY_SIDE + column] * scale;
      }
    }
  }
}
