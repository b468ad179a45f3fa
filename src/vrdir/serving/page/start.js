// Said where the page's modules cannot load: from disk, browsers allow no module in a file of its own.
if (location.protocol === "file:" && !document.querySelector("script[data-file]")) {
  document.getElementById("from-disk").hidden = false;
}
