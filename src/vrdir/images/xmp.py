"""XMP that points outside itself: to a film, a gain map or a depth map that lay behind the photo,
and is gone with the old file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.dom import Node, minidom


class Pointer(NamedTuple):
    """What points outside: a namespace's beginning, which properties (a regular expression), what
    they point to."""

    namespace: str
    names: str
    what: str


PHOTOS = "http://ns.google.com/photos/1.0/"
POINTERS = (
    Pointer(f"{PHOTOS}camera/", r"MicroVideo.*|MotionPhoto.*", "a motion photo's film"),
    Pointer(f"{PHOTOS}container/", ".*", "files behind the photo"),
    Pointer(f"{PHOTOS}depthmap/", ".*", "a depth map"),
    Pointer(f"{PHOTOS}dd/", ".*", "a depth map"),
    Pointer(f"{PHOTOS}image/", ".*", "another photo"),
    Pointer(f"{PHOTOS}audio/", ".*", "a sound"),
    Pointer("http://ns.adobe.com/hdr-gain-map/", ".*", "a gain map"),
    Pointer("http://ns.apple.com/HDRGainMap/", ".*", "a gain map"),
    Pointer("http://ns.apple.com/pixeldatainfo/", ".*", "a picture beside the photo"),
    Pointer("http://ns.apple.com/depthData/", ".*", "a depth map"),
    Pointer("http://ns.apple.com/depthBlurEffect/", ".*", "a depth map"),
    Pointer(
        "http://ns.xiaomi.com/photos/1.0/camera/",
        r"XMPMeta|MicroVideo.*|MotionPhoto.*",
        "a motion photo's film",
    ),
    Pointer("http://ns.adobe.com/xmp/note/", "HasExtendedXMP", "extended XMP"),
    Pointer("http://ns.adobe.com/xap/1.0/", "Thumbnails", "a preview of how it was"),
)
TELLS = re.compile("|".join(re.escape(pointer.namespace) for pointer in POINTERS).encode())
DECLARATIONS = (
    b"<!DOCTYPE",
    b"<!ENTITY",
)  # which XMP has none of, and which can make a few bytes unfold without end


def without_pointers(xmp: bytes) -> tuple[bytes, list[str]]:
    """XMP without the properties that point outside it, and what they point to; as it is where
    there are none.

    XMP that may hold some and cannot be read is left out whole: (b"", ["..."]).
    """
    plain = xmp.replace(b"\0", b"")  # of UTF-16, to look for names in it
    if not TELLS.search(plain):
        return xmp, []
    try:
        if any(declaration in plain for declaration in DECLARATIONS):
            raise ValueError("entities")
        text = xmp.decode("utf-16" if xmp.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8")
        document = minidom.parseString(text.strip("\0 \n\r\t\ufeff"))
        found = list(dict.fromkeys(_removed(document)))
        return (
            "".join(node.toxml() for node in document.childNodes).encode() if found else xmp
        ), found
    except Exception:  # a parser raises all sorts, RecursionError too
        return b"", ["what cannot be told, as it cannot be read"]


def _removed(element: minidom.Document | minidom.Element) -> Iterator[str]:
    """Take out of an element, and of those in it, what points outside; what that was."""
    if isinstance(element, minidom.Element):
        for attribute in list(element.attributes.values()):
            if what := _points_to(attribute.namespaceURI, attribute.localName):
                element.removeAttributeNode(attribute)
                yield what
    for child in list(element.childNodes):
        if child.nodeType != Node.ELEMENT_NODE:
            continue
        if what := _points_to(child.namespaceURI, child.localName):
            element.removeChild(child)
            yield what
        else:
            yield from _removed(child)


def _points_to(namespace: str | None, name: str | None) -> str:
    """What a property points to; "" for those that do not, and for the declaration of a
    namespace."""
    for pointer in POINTERS:
        if (namespace or "").startswith(pointer.namespace) and re.fullmatch(
            pointer.names, name or ""
        ):
            return pointer.what
    return ""
