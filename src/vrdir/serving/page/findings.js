// The diagnosis as bars with words, and the detector's boxes.

const WORDS = [[0.05, "none"], [0.2, "a little"], [0.45, "clearly visible"], [0.7, "strong"], [2, "very strong"]];
const word = (share) => WORDS.find(([most]) => share < most)[1];
const percent = (share) => `${Math.round(100 * share)} %`;
const NAMES = { haze: "Haze", noise: "Noise", rain: "Rain", sensor_noise: "Sensor noise", clean: "Clean" };

/** Show how bad each degradation was, in a definition list. */
export function showDiagnosis(list, { diagnosis, shares }) {
  const rows = diagnosis
    ? [
        ["Haze", diagnosis.haze ?? shares.haze ?? 0, diagnosis.haze === null ? "of the network's attention" : "of the light is lost"],
        ["Noise", Math.min(diagnosis.noise / 25, 1), `${diagnosis.noise.toFixed(1)} of 255 levels`],
        ["Rain", diagnosis.rain, "of the pixels have streaks"],
        ["Change by the restoration", Math.min(diagnosis.changed / 64, 1), `${diagnosis.changed.toFixed(1)} of 255 levels on average`],
      ]
    : Object.entries(shares).map(([name, share]) => [NAMES[name] ?? name, share, "of the network's attention"]);
  list.replaceChildren(...rows.flatMap(([name, share, unit]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    const meter = document.createElement("meter");
    const plain = !diagnosis || name.startsWith("Change"); // a share is no measure of how bad it is
    term.textContent = plain ? name : `${name}: ${word(share)}`;
    meter.value = share;
    meter.setAttribute("aria-label", name);
    const figure = unit.startsWith("of ") ? `${percent(share)} ${unit}` : unit;
    detail.append(meter, figure);
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
  const size = Math.max(width, height) / 55;
  svg.replaceChildren(...boxes.flatMap((box) => {
    const text = make("text", { x: box.x0, y: Math.max(box.y0 - size / 4, size), style: `font-size:${size}px;stroke-width:${size / 6}px` });
    text.textContent = `${box.label} ${Math.round(100 * box.score)} %`;
    return [make("rect", { x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0 }), text];
  }));
}
