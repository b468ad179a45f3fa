// Large photos: a reduced copy decides how much contrast and brightness change. As
// restoring/large_images.py, which says why.

const COPY_PIXELS = 400 * 270;
const LARGE_PIXELS = 4 * COPY_PIXELS;
const WINDOW = 9; // pixels of the copy, for each affine map
const EVEN = 1e-4; // variance below which a window is even, and its contrast is kept
const MOST = 4; // by which contrast is raised
const LEAST_SIDE = 64; // of a copy

/** The size {width, height} of a photo's copy; null if it is not large, or the copy too narrow. */
export function copySize(width, height) {
  const scale = Math.sqrt(COPY_PIXELS / (width * height));
  const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
  return width * height > LARGE_PIXELS && Math.min(size.width, size.height) >= LEAST_SIDE ? size : null;
}

/** Three planes of a copy, reduced bicubically (antialiased) from rows of the full size. */
export class Reduced {
  constructor(size, width, height) {
    Object.assign(this, size);
    this.values = new Float32Array(3 * size.width * size.height);
    this.across = spread(width, size.width);
    this.down = spread(height, size.height);
  }

  /** Add rows from row `top` on; value(channel, y, x) gives the pixels of these rows. */
  add(top, count, value) {
    const { width, height, values, across, down } = this;
    const line = new Float32Array(width);
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < count; y++) {
        line.fill(0);
        for (let x = 0; x < across.length; x++) {
          const pixel = value(channel, y, x);
          for (const [column, weight] of across[x]) line[column] += weight * pixel;
        }
        for (const [row, weight] of down[top + y]) {
          const start = (channel * height + row) * width;
          for (let x = 0; x < width; x++) values[start + x] += weight * line[x];
        }
      }
    }
  }

  /** The planes, once all rows were added. */
  finished() {
    return this.values.map((value) => Math.min(Math.max(value, 0), 1));
  }
}

/** For each place before, the places after that it counts for: antialiased bicubic resampling. */
function spread(before, after) {
  const found = Array.from({ length: before }, () => []);
  const scale = before / after;
  for (let place = 0; place < after; place++) {
    const middle = (place + 0.5) * scale;
    const weights = [];
    const last = Math.min(Math.floor(middle + 2 * scale + 0.5), before);
    for (let at = Math.max(Math.floor(middle - 2 * scale + 0.5), 0); at < last; at++) {
      weights.push([at, cubic(Math.abs((at + 0.5 - middle) / scale))]);
    }
    const total = weights.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [at, weight] of weights) found[at].push([place, weight / total]);
  }
  return found;
}

/** Keys' cubic convolution kernel with a = -0.5. */
function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

/** The mean of a plane in the window around each place; the edge is repeated. */
function averaged(plane, width, height) {
  const reach = (WINDOW - 1) / 2;
  const [lines, means] = [new Float64Array(plane.length), new Float32Array(plane.length)];
  const inside = (place, length) => Math.min(Math.max(place, 0), length - 1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let step = -reach; step <= reach; step++) sum += plane[y * width + inside(x + step, width)];
      lines[y * width + x] = sum;
    }
  }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let step = -reach; step <= reach; step++) sum += lines[inside(y + step, height) * width + x];
      means[y * width + x] = sum / WINDOW ** 2;
    }
  }
  return means;
}

/** The affine maps {gain, offset} of each channel that turn the planes `found` into `wanted`. */
export function affineMaps(found, wanted, { width, height }) {
  const size = width * height;
  return [0, 1, 2].map((channel) => {
    const [from, to] = [found, wanted].map((planes) => planes.subarray(channel * size, (channel + 1) * size));
    const mean = (values) => averaged(values, width, height);
    const [before, after] = [mean(from), mean(to)];
    const [products, squares] = [mean(from.map((value, at) => value * to[at])), mean(from.map((value) => value * value))];
    const gain = products.map((product, at) => {
      const covariance = product - before[at] * after[at];
      const variance = squares[at] - before[at] ** 2;
      return Math.min(Math.max((covariance + EVEN) / (variance + EVEN), 0), MOST);
    });
    return { gain: mean(gain), offset: mean(after.map((value, at) => value - gain[at] * before[at])) };
  });
}

/** For each place of a full side, the two places of the copy between which it is, and where. */
function between(copy, full) {
  return Array.from({ length: full }, (_, place) => {
    const at = Math.min(Math.max(((place + 0.5) * copy) / full - 0.5, 0), copy - 1);
    const first = Math.floor(at);
    return [first, Math.min(first + 1, copy - 1), at - first];
  });
}

/** Affine maps of a copy, enlarged bilinearly and applied at full size. */
export class Maps {
  constructor(maps, copy, width, height) {
    Object.assign(this, { maps, copy });
    this.across = between(copy.width, width);
    this.down = between(copy.height, height);
  }

  /** Change one row of a channel in place. */
  apply(channel, y, row) {
    const [above, below, share] = this.down[y];
    const { gain, offset } = this.maps[channel];
    const { width } = this.copy;
    const lerped = (map, x) => {
      const [first, second] = [map[above * width + x], map[below * width + x]];
      return first + share * (second - first);
    };
    const gains = Float32Array.from({ length: width }, (_, x) => lerped(gain, x));
    const offsets = Float32Array.from({ length: width }, (_, x) => lerped(offset, x));
    this.across.forEach(([left, right, part], x) => {
      const raised = gains[left] + part * (gains[right] - gains[left]);
      const added = offsets[left] + part * (offsets[right] - offsets[left]);
      row[x] = Math.min(Math.max(raised * row[x] + added, 0), 1);
    });
  }
}
