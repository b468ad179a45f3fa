// How a large photo is divided into tiles, and put together again.

export const WHOLE = 2 ** 20; // pixels: a photo of no more is restored as a whole
const SIDE = 512; // pixels: of a tile
export const OVERLAP = 32; // pixels that neighbours share, where one fades into the other
const MEASURED = 5; // tiles that the means over the whole photo are taken from

/** Return the tiles {left, top, width, height} of a photo, row by row. */
export function tilesOf(width, height) {
  if (width * height <= WHOLE) return [{ left: 0, top: 0, width, height }];
  const across = starts(width);
  return starts(height).flatMap((top) => across.map((left) => ({
    left, top, width: Math.min(SIDE, width), height: Math.min(SIDE, height),
  })));
}

function starts(length) {
  if (length <= SIDE) return [0];
  const count = Math.ceil((length - OVERLAP) / (SIDE - OVERLAP));
  // Multiples of 16, so that the network's coarse maps lie alike in all tiles.
  return Array.from({ length: count }, (_, number) => (
    number === count - 1 ? length - SIDE : Math.round((number * (length - SIDE)) / (count - 1) / 16) * 16
  ));
}

/** Return the tiles that the means are taken from, spread over the photo. */
export function measuredOf(tiles) {
  const count = Math.min(MEASURED, tiles.length);
  return Array.from({ length: count }, (_, number) => (
    tiles[Math.round((number * (tiles.length - 1)) / Math.max(count - 1, 1))]
  ));
}

/** Put a tile into the result; where another one lies already, fade from it into this one. */
export function place(context, tile, pixels) {
  const { left, top, width, height } = tile;
  const fadeX = left ? OVERLAP : 0;
  const fadeY = top ? OVERLAP : 0;
  const blend = (x0, y0, w, h) => {
    if (!w || !h) return;
    const { data } = context.getImageData(left + x0, top + y0, w, h);
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const weight = (x0 + x < fadeX ? (x0 + x + 0.5) / fadeX : 1) * (y0 + y < fadeY ? (y0 + y + 0.5) / fadeY : 1);
        const here = 4 * ((y0 + y) * width + x0 + x);
        const there = 4 * (y * w + x);
        for (let channel = 0; channel < 4; channel++) {
          pixels[here + channel] = Math.round(weight * pixels[here + channel] + (1 - weight) * data[there + channel]);
        }
      }
    }
  };
  blend(0, 0, width, fadeY);
  blend(0, fadeY, fadeX, height - fadeY);
  context.putImageData(new ImageData(pixels, width, height), left, top);
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
