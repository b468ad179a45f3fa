// Metadata of the photo that came in, put into the file that a canvas wrote: JPEG and PNG.
// Colour profiles are left out: the canvas has converted the colours to sRGB.

const JPEG_KEPT = [0xe1, 0xed, 0xfe]; // Exif and XMP; IPTC; comments
const PNG_KEPT = ["eXIf", "iTXt", "tEXt", "zTXt", "pHYs", "tIME"];
const text = (bytes, from, length) => String.fromCharCode(...bytes.subarray(from, from + length));

/** Return the written file with the metadata of the source; both are blobs. */
export async function withMetadata(source, written) {
  const [before, after] = await Promise.all([source, written].map(async (blob) => new Uint8Array(await blob.arrayBuffer())));
  if (written.type === "image/jpeg" && isJpeg(before)) {
    const kept = jpegSegments(before).filter(({ marker }) => JPEG_KEPT.includes(marker)).map(({ bytes }) => upright(bytes));
    return new Blob([after.subarray(0, 2), ...kept, after.subarray(2)], { type: written.type });
  }
  if (written.type === "image/png" && text(before, 1, 3) === "PNG") {
    const kept = pngChunks(before).filter(({ name }) => PNG_KEPT.includes(name)).map(({ bytes, name }) => (name === "eXIf" ? uprightChunk(bytes) : bytes));
    const header = 8 + 25; // the signature and IHDR come first
    return new Blob([after.subarray(0, header), ...kept, after.subarray(header)], { type: written.type });
  }
  return written;
}

const isJpeg = (bytes) => bytes[0] === 0xff && bytes[1] === 0xd8;

function jpegSegments(bytes) {
  const found = [];
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) {
    const length = 2 + (bytes[at + 2] << 8) + bytes[at + 3];
    if (at + length > bytes.length) break;
    found.push({ marker: bytes[at + 1], bytes: bytes.slice(at, at + length) });
    at += length;
  }
  return found;
}

function pngChunks(bytes) {
  const view = new DataView(bytes.buffer);
  const found = [];
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = 12 + view.getUint32(at);
    if (at + length > bytes.length) break;
    found.push({ name: text(bytes, at + 4, 4), bytes: bytes.slice(at, at + length) });
    at += length;
  }
  return found;
}

/** A JPEG segment with Exif, whose picture lies upright now, as the canvas turned it. */
function upright(segment) {
  if (text(segment, 4, 4) === "Exif") resetOrientation(segment, 10);
  return segment;
}

function uprightChunk(chunk) {
  resetOrientation(chunk, 8);
  const sum = crc32(chunk.subarray(4, chunk.length - 4));
  new DataView(chunk.buffer).setUint32(chunk.length - 4, sum);
  return chunk;
}

/** Set the orientation in Exif data, which begin at a place in these bytes, to upright. */
function resetOrientation(bytes, start) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const little = view.getUint16(start) === 0x4949;
  const directory = start + view.getUint32(start + 4, little);
  if (directory + 2 > bytes.length) return;
  const count = view.getUint16(directory, little);
  for (let entry = directory + 2; entry < directory + 2 + 12 * count && entry + 12 <= bytes.length; entry += 12) {
    if (view.getUint16(entry, little) === 0x0112) view.setUint16(entry + 8, 1, little);
  }
}

function crc32(bytes) {
  let sum = ~0;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (0xedb88320 & -(sum & 1));
  }
  return ~sum >>> 0;
}
