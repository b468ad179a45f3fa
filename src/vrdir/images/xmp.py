"""Removal of XMP properties that point outside the XMP.

They point to a film, a gain map or a depth map that followed the photo in its old file, and is not
in the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.dom import Node, minidom

from vrdir.errors import ImageError


class Pointer(NamedTuple):
    """Properties that point outside the XMP.

    Attributes:
        namespace: the beginning of their namespace.
        names: a regular expression for their names.
        target: what they point to, in words.
    """

    namespace: str
    names: str
    target: str


PHOTOS = "http://ns.google.com/photos/1.0/"
POINTERS = (
    Pointer(f"{PHOTOS}camera/", r"MicroVideo.*|MotionPhoto.*", "a motion photo's film"),
    Pointer(f"{PHOTOS}container/", ".*", "files behind the photo"),
    Pointer(f"{PHOTOS}depthmap/", ".*", "a depth map"),
    # Dynamic Depth: what is in its device, container and depth map belongs together.
    Pointer("http://ns.google.com/photos/dd/1.0/", ".*", "a depth map"),
    Pointer(f"{PHOTOS}image/", ".*", "another photo"),
    Pointer(f"{PHOTOS}audio/", ".*", "a sound"),
    Pointer("http://ns.adobe.com/hdr-gain-map/", ".*", "a gain map"),
    Pointer("http://ns.apple.com/HDRGainMap/", ".*", "a gain map"),
    Pointer("http://ns.apple.com/pixeldatainfo/", ".*", "a picture next to the photo"),
    Pointer("http://ns.apple.com/depthData/", ".*", "a depth map"),
    Pointer("http://ns.apple.com/depthBlurEffect/", ".*", "a depth map"),
    Pointer(
        "http://ns.xiaomi.com/photos/1.0/camera/",
        r"XMPMeta|MicroVideo.*|MotionPhoto.*",
        "a motion photo's film",
    ),
    Pointer(
        "http://ns.oplus.com/photos/1.0/camera/",
        r"MotionPhoto.*|OLivePhoto.*|VideoLength",
        "a motion photo's film",
    ),
    Pointer(
        "http://ns.vivo.com/photos/1.0/camera/",
        r"VMotionPhoto.*|VMediaKit.*",
        "a motion photo's film",
    ),
    Pointer("http://ns.leiainc.com/photos/1.0/image/", ".*", "another photo"),
    Pointer("http://ns.adobe.com/xmp/note/", "HasExtendedXMP", "extended XMP"),
    Pointer("http://ns.adobe.com/xap/1.0/", "Thumbnails", "a preview of the old photo"),
)
NAMESPACES = re.compile("|".join(re.escape(pointer.namespace) for pointer in POINTERS).encode())
# Declarations that XMP does not have, and with which a few bytes can expand without end.
DECLARATIONS = (b"<!DOCTYPE", b"<!ENTITY")


def without_pointers(xmp: bytes) -> tuple[bytes, list[str]]:
    """Return XMP without the properties that point outside it, and what they point to.

    XMP without such properties is returned unchanged, with an empty list. XMP that may have some
    and cannot be read is dropped as a whole.
    """
    plain = xmp.replace(b"\0", b"")  # so that names are found in UTF-16 too
    if not NAMESPACES.search(plain):
        return xmp, []
    try:
        if any(declaration in plain for declaration in DECLARATIONS):
            raise ImageError("XMP with entities")
        text = xmp.decode("utf-16" if xmp.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
        document = minidom.parseString(text.strip("\0 \n\r\t\ufeff"))
        found = list(dict.fromkeys(_remove(document)))
        kept = "".join(node.toxml() for node in document.childNodes).encode() if found else xmp
        return kept, found
    except Exception:  # a parser raises many kinds, RecursionError too
        return b"", ["something unknown, as it cannot be read"]


def _remove(element: minidom.Document | minidom.Element) -> Iterator[str]:
    """Remove the pointers from an element and those below it; yield what each pointed to."""
    if isinstance(element, minidom.Element):
        for attribute in list(element.attributes.values()):
            if target := _target(attribute.namespaceURI, attribute.localName):
                element.removeAttributeNode(attribute)
                yield target
    for child in list(element.childNodes):
        if child.nodeType != Node.ELEMENT_NODE:
            continue
        if target := _target(child.namespaceURI, child.localName):
            element.removeChild(child)
            yield target
        else:
            yield from _remove(child)


def _target(namespace: str | None, name: str | None) -> str:
    """Return what a property points to; "" if it does not point outside the XMP."""
    for pointer in POINTERS:
        if (namespace or "").startswith(pointer.namespace) and re.fullmatch(
            pointer.names, name or ""
        ):
            return pointer.target
    return ""
