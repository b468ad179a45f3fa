// Noise and rain by what the network removed from the middle of a photo: as restoring/diagnosis.py.

export const WINDOW = 256; // pixels: side of the middle part
const AROUND = 16; // pixels: side of the surroundings of a streak
const STREAK = 12 / 255; // the least brightness that rain adds to a pixel

/** Return {noise, rain} for what was removed from the green, in [-1, 1], row by row. */
export function noiseAndRain(removed, width, height) {
  if (Math.min(width, height) < 3) return { noise: 0, rain: 0 };
  const at = (x, y) => removed[y * width + x];
  const response = new Float32Array((width - 2) * (height - 2));
  for (let y = 1; y < height - 1; y++) {
    for (let x = 1; x < width - 1; x++) {
      const corners = at(x - 1, y - 1) + at(x + 1, y - 1) + at(x - 1, y + 1) + at(x + 1, y + 1);
      const sides = at(x, y - 1) + at(x - 1, y) + at(x + 1, y) + at(x, y + 1);
      response[(y - 1) * (width - 2) + x - 1] = Math.abs(corners - 2 * sides + 4 * at(x, y)) / 6;
    }
  }
  response.sort();
  const sigma = response[Math.floor((response.length - 1) / 2)] / 0.6745;
  return { noise: 255 * sigma, rain: streaks(removed, width, height, Math.max(3.5 * sigma, STREAK)) };
}

/** Return the share of pixels that exceed their surroundings by a threshold. */
function streaks(removed, width, height, threshold) {
  const wide = Math.max(1, Math.floor(width / AROUND));
  const high = Math.max(1, Math.floor(height / AROUND));
  const pooled = new Float32Array(wide * high);
  for (let row = 0; row < high; row++) {
    for (let column = 0; column < wide; column++) {
      const [top, bottom] = [Math.floor((row * height) / high), Math.ceil(((row + 1) * height) / high)];
      const [left, right] = [Math.floor((column * width) / wide), Math.ceil(((column + 1) * width) / wide)];
      let sum = 0;
      for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) sum += removed[y * width + x];
      pooled[row * wide + column] = sum / ((bottom - top) * (right - left));
    }
  }
  const columns = between(width, wide);
  const rows = between(height, high);
  let count = 0;
  for (let y = 0; y < height; y++) {
    const [above, below, down] = rows[y];
    for (let x = 0; x < width; x++) {
      const [left, right, across] = columns[x];
      const upper = pooled[above * wide + left] * (1 - across) + pooled[above * wide + right] * across;
      const lower = pooled[below * wide + left] * (1 - across) + pooled[below * wide + right] * across;
      if (removed[y * width + x] - (upper * (1 - down) + lower * down) > threshold) count++;
    }
  }
  return count / (width * height);
}

/** For each of `many` places, its two neighbours among `few`, and how far it is to the second. */
function between(many, few) {
  return Array.from({ length: many }, (_, place) => {
    const at = Math.max(0, ((place + 0.5) * few) / many - 0.5);
    const first = Math.floor(at);
    return [first, Math.min(first + 1, few - 1), at - first];
  });
}
