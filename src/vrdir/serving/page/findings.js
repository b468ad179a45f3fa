// The diagnosis as bars with words, and the detector's boxes.

const WORDS = [[0.05, "none"], [0.2, "a little"], [0.5, "some"], [Infinity, "a lot"]];
const NAMES = { haze: "Haze", noise: "Noise", rain: "Rain", sensor_noise: "Camera noise", clean: "Clean" };
const FOUND = 0.1; // share of the network's work from which its measurement of a kind is worth saying
const MUCH = 64; // levels of 255 at which the bar for the change is full
const LEAST = 0.5; // levels of 255, below which nobody sees a grain or a change
const CLEAN = 0.5; // share from which the network takes a photo for clean

export const nameOf = (kind) => NAMES[kind] ?? kind.replaceAll("_", " ");
const word = (share) => WORDS.find(([most]) => share < most)[1];
const percent = (share) => `${Math.round(100 * share)} %`;
const grain = (noise) => (noise >= LEAST ? `grain of ${noise.toFixed(1)} of 255 levels of brightness` : "");
const MEASURED = {
  haze: ({ haze }) => (haze ?? null) === null ? "" : `${percent(haze)} of the light is lost`,
  noise: ({ noise }) => (noise ?? null) === null ? "" : grain(noise),
  sensor_noise: ({ noise }) => (noise ?? null) === null ? "" : grain(noise),
  rain: ({ rain }) => (rain ?? null) === null ? "" : `streaks on ${percent(rain)} of the pixels`,
};

/** Return what is said about a photo: one sentence, and rows of [name, word, bar, explanation]. */
export function described({ diagnosis, shares }) {
  const kinds = Object.entries(shares).filter(([kind]) => kind !== "clean").sort((one, other) => other[1] - one[1]);
  const rows = kinds.map(([kind, share]) => [
    nameOf(kind), word(share), share, share >= FOUND ? MEASURED[kind]?.(diagnosis) ?? "" : "",
  ]);
  rows.push(["Change", "", diagnosis.changed / MUCH, `${diagnosis.changed.toFixed(1)} of 255 levels, on average`]);
  const [kind, share] = kinds[0] ?? ["clean", 0];
  const clean = shares.clean ?? 0;
  const summary = clean >= CLEAN || share < clean
    ? "The network takes this photo for mostly clean."
    : diagnosis.changed < LEAST ? "The network changes almost nothing in this photo."
    : `Mostly ${nameOf(kind).toLowerCase()}: it takes ${percent(share)} of the network's work.`;
  return { summary, rows };
}

/** Show how bad each degradation was, in a definition list. */
export function showDiagnosis(sentence, list, result) {
  const { summary, rows } = described(result);
  sentence.textContent = summary;
  list.replaceChildren(...rows.flatMap(([name, strength, share, explanation]) => {
    const [term, detail, bar, fill, note] = ["dt", "dd", "div", "div", "span"].map((tag) => document.createElement(tag));
    const least = Math.min(1, Math.max(0, share));
    term.textContent = name;
    if (strength) term.append(Object.assign(document.createElement("span"), { className: "word", textContent: strength }));
    bar.className = "meter";
    bar.setAttribute("aria-hidden", "true"); // the words beside it say the same
    fill.style.width = `${100 * least}%`;
    bar.append(fill);
    note.className = "note";
    note.textContent = explanation;
    detail.append(bar, note);
    return [term, detail];
  }));
}

/** Draw a detector's boxes over a picture; the SVG has the picture's pixels as its units. */
export function showBoxes(svg, { width, height, boxes }) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const make = (name, values) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(values).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };
  const size = (13 * width) / (svg.clientWidth || width); // as large as small print, at any zoom
  svg.replaceChildren(...boxes.flatMap((box) => {
    const text = make("text", { x: box.x0, y: Math.max(box.y0 - size / 4, size), style: `font-size:${size}px;stroke-width:${size / 5}px` });
    text.textContent = `${box.label} ${Math.round(100 * box.score)} %`;
    return [make("rect", { x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0 }), text];
  }));
}

/** Return in words what a detector finds: "3 objects: 2 car, 1 person". */
export function counted({ boxes }) {
  const counts = new Map();
  for (const { label } of boxes) counts.set(label, (counts.get(label) ?? 0) + 1);
  const listed = [...counts].map(([label, count]) => `${count} ${label}`).join(", ");
  return `${boxes.length} object${boxes.length === 1 ? "" : "s"}${listed ? `: ${listed}` : ""}`;
}
