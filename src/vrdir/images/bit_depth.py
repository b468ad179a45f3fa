"""How many bits per channel a file has where Pillow reads 8."""

from __future__ import annotations

from PIL import Image


def bits_lost(picture: Image.Image, content: bytes) -> int:
    """Return the bits per channel of a file that Pillow reduces to 8; 0 if it loses none."""
    if picture.mode not in ("L", "LA", "RGB", "RGBA"):
        return 0
    bits = 8
    if picture.format == "PPM":
        bits = _ppm_bits(content)
    elif picture.format == "JPEG2000":  # the SIZ segment, up to the first channel's depth
        start = content.find(b"\xff\x4f\xff\x51")
        bits = (content[start + 42] & 0x7F) + 1 if 0 <= start < len(content) - 42 else 8
    elif picture.format == "AVIF":  # the av1C box: the bits high_bitdepth and twelve_bit
        start = content.find(b"av1C")
        if 0 <= start < len(content) - 6:
            bits = 8 + 2 * (content[start + 6] >> 6 & 1) + 2 * (content[start + 6] >> 5 & 1)
    elif picture.format == "HEIF":
        bits = int(picture.info.get("bit_depth", 8))
    return bits if bits > 8 else 0


def _ppm_bits(content: bytes) -> int:
    """Return the bits per channel of a PPM.

    Its header is P6, width, height, white, with comments between them.
    """
    words = [
        word for line in content[:200].split(b"\n") for word in line.partition(b"#")[0].split()
    ]
    if content[:2] in (b"P2", b"P3", b"P5", b"P6") and len(words) > 3 and words[3].isdigit():
        return int(words[3]).bit_length()
    return 8
