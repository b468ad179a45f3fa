// Borders of one colour, such as black bars: left out, and kept as they are. As restoring/borders.py.

const EDGE = 2; // levels: mean difference of the picture from its border, where the picture begins
const PLAIN = 0.5; // share of a line that has the border's colour, where something is written on it
const WRITTEN = 1 / 6; // of all lines: most lines of a border that may be written on

/** How many lines at an edge are a border; line(n) gives the RGBA of the n-th from there. */
function borderOf(count, line) {
  const [red, green, blue] = line(0);
  const shareOf = (rgba) => {
    let same = 0;
    for (let at = 0; at < rgba.length; at += 4) {
      if (rgba[at] === red && rgba[at + 1] === green && rgba[at + 2] === blue) same++;
    }
    return same / (rgba.length / 4);
  };
  if (shareOf(line(0)) < 1) return 0; // most photos end here
  let [plain, last, written, between] = [0, 0, 0, 0];
  let pictured = false;
  for (let number = 1; number < count && !pictured; number++) {
    const share = shareOf(line(number));
    pictured = share < PLAIN;
    if (share < 1) {
      plain ||= number;
      between++;
    } else {
      last = number;
      written += between;
      between = 0;
    }
  }
  if (!plain) return 0;
  const first = pictured && written <= WRITTEN * count ? last + 1 : plain;
  const rgba = line(first);
  let sum = 0;
  for (let at = 0; at < rgba.length; at += 4) {
    sum += Math.abs(rgba[at] - red) + Math.abs(rgba[at + 1] - green) + Math.abs(rgba[at + 2] - blue);
  }
  return sum / (0.75 * rgba.length) > EDGE ? first : 0;
}

/** The part {left, top, width, height} of a photo inside its borders; read(part) gives its RGBA. */
export function insideBorders(width, height, read) {
  let inner = { left: 0, top: 0, width, height };
  const trim = (side, length, far) => {
    const { [side]: start, [length]: count } = inner;
    const found = borderOf(count, (n) => read({ ...inner, [side]: far ? start + count - 1 - n : start + n, [length]: 1 }));
    inner = { ...inner, [side]: far ? start : start + found, [length]: count - found };
    return found;
  };
  for (;;) {
    const found = [trim("top", "height", false), trim("top", "height", true), trim("left", "width", false), trim("left", "width", true)];
    if (!found.some(Boolean)) return inner;
  }
}
