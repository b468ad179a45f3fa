// The page's files: beside it on a web host, or inside it (`vrdir web build FILE.html`).

/** Whether this is one file that holds all others: it works from disk too. */
export const embedded = document.querySelector("script[data-file]") !== null;

/** Return the address of one of the page's files. From disk, only data: addresses can be loaded. */
export function asset(name) {
  const inside = document.querySelector(`script[data-file="${name}"]`);
  if (!inside) return new URL(name, document.baseURI).href;
  return `data:${inside.dataset.type};base64,${inside.textContent}`;
}
