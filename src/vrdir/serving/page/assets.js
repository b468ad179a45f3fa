// The page's files: beside it on a web host, or inside it (`vrdir web build FILE.html`).

const known = new Map();

/** Whether this is one file that holds all others: it works from disk too. */
export const embedded = document.querySelector("script[data-file]") !== null;

/** Return the address of one of the page's files. */
export function asset(name) {
  const inside = document.querySelector(`script[data-file="${name}"]`);
  if (!inside) return new URL(name, document.baseURI).href;
  if (!known.has(name)) {
    const bytes = Uint8Array.from(atob(inside.textContent), (letter) => letter.charCodeAt(0));
    known.set(name, URL.createObjectURL(new Blob([bytes], { type: inside.dataset.type })));
  }
  return known.get(name);
}
