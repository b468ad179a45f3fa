"""XMP that points outside itself, as phones and cameras write it."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from vrdir.images.convert import open_image
from vrdir.images.reading import decode
from vrdir.images.xmp import without_pointers

PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5" {declared} {attributes}>'
    "<dc:title>B&#228;r &amp; Co</dc:title>{elements}</rdf:Description></rdf:RDF>"
    "</x:xmpmeta>{padding}<?xpacket end='w'?>"
)
G = "http://ns.google.com/photos/1.0/"
CAMERA, CONTAINER = (
    f'xmlns:GCamera="{G}camera/"',
    f'xmlns:Container="{G}container/" xmlns:Item="{G}container/item/"',
)
DIRECTORY = (
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource">'
    '<Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="1234"/>'
    "</rdf:li></rdf:Seq></Container:Directory>"
)
# Declarations, attributes, elements, the target in words, and a text that must be removed.
CASES = {
    "micro video": (
        CAMERA,
        'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99"',
        "",
        "a motion photo's film",
        "MicroVideo",
    ),
    "motion photo": (
        f"{CAMERA} {CONTAINER}",
        'GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"',
        DIRECTORY,
        "film",
        "MotionPhoto",
    ),
    "as elements": (
        CAMERA,
        "",
        "<GCamera:MotionPhoto>1</GCamera:MotionPhoto>",
        "a motion photo's film",
        "MotionPhoto",
    ),
    "ultra HDR": (
        f'{CONTAINER} xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"',
        'hdrgm:Version="1.0"',
        DIRECTORY,
        "a gain map",
        "Directory",
    ),
    "Apple's gain map": (
        'xmlns:H="http://ns.apple.com/HDRGainMap/1.0/"',
        'H:HDRGainMapVersion="65536"',
        "",
        "a gain map",
        "HDRGainMapVersion",
    ),
    "depth": (
        f'xmlns:GDepth="{G}depthmap/" xmlns:GImage="{G}image/"',
        'GDepth:Format="RangeInverse" GImage:Mime="image/jpeg"',
        "",
        "a depth map and another photo",
        "RangeInverse",
    ),
    "dynamic depth": (
        'xmlns:Device="http://ns.google.com/photos/dd/1.0/device/"',
        "",
        "<Device:Cameras><rdf:Seq/></Device:Cameras>",
        "a depth map",
        "Cameras",
    ),
    "motion photo of OPPO": (
        'xmlns:OpCamera="http://ns.oplus.com/photos/1.0/camera/"',
        'OpCamera:OLivePhotoVersion="2" OpCamera:VideoLength="99"',
        "",
        "a motion photo's film",
        "VideoLength",
    ),
    "motion photo of vivo": (
        'xmlns:VCamera="http://ns.vivo.com/photos/1.0/camera/"',
        'VCamera:VMotionPhotoVersion="1"',
        "",
        "a motion photo's film",
        "VMotionPhotoVersion",
    ),
    "second eye": (
        'xmlns:LImage="http://ns.leiainc.com/photos/1.0/image/"',
        'LImage:Data="AAAA"',
        "",
        "another photo",
        "LImage:Data",
    ),
    "extended": (
        'xmlns:xmpNote="http://ns.adobe.com/xmp/note/"',
        f'xmpNote:HasExtendedXMP="{"0" * 32}"',
        "",
        "extended XMP",
        "HasExtendedXMP",
    ),
    "preview": (
        "",
        "",
        "<xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails>",
        "a preview of the old photo",
        "Thumbnails",
    ),
}


def packet(
    declared: str = "", attributes: str = "", elements: str = "", padding: str = " " * 50
) -> bytes:
    return PACKET.format(
        declared=declared, attributes=attributes, elements=elements, padding=padding
    ).encode()


@pytest.mark.parametrize("kind", CASES)
def test_xmp_that_points_outside_is_removed_with_a_warning(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    declared, attributes, elements, what, gone = CASES[kind]
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    )
    for file_format in ("JPEG", "WEBP", "AVIF", "PNG", "TIFF"):
        picture.info["xmp"] = packet(declared, attributes, elements)
        from vrdir.images.writing import encode

        content = encode(picture, file_format)
        caplog.clear()
        xmp = decode(content, "a.jpg").info["xmp"]
        assert gone.encode() not in xmp
        assert b'xmp:Rating="5"' in xmp
        assert "Bär &amp; Co".encode() in xmp
        assert (xmp.startswith(b"<?xpacket begin="), xmp.endswith(b"<?xpacket end='w'?>")) == (
            True,
            True,
        )
        assert caplog.text.count("a.jpg has XMP that refers to") == 1
        assert what in caplog.text
    opened = open_image(Image.open(io.BytesIO(content)))
    assert gone.encode() not in opened.close(opened.tensor).info["xmp"]


def test_other_xmp_is_unchanged() -> None:
    pano = packet(
        f'xmlns:GPano="{G}panorama/" {CAMERA}',
        'GPano:ProjectionType="equirectangular" GCamera:BurstID="7"',
    )
    for xmp in (packet(), pano, b"no XML", b"", packet("", "", "<dc:x>MotionPhoto</dc:x>")):
        assert without_pointers(xmp) == (xmp, [])


def test_unreadable_xmp_with_pointers_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    cut = packet(CAMERA, 'GCamera:MotionPhoto="1"')[:-80]
    deep = packet(CAMERA, 'GCamera:MotionPhoto="1"', "<dc:a>" * 20000 + "</dc:a>" * 20000)
    for xmp in (cut, entities.encode() + packet(CAMERA, 'GCamera:MotionPhoto="1"'), deep):
        assert without_pointers(xmp)[0] == b""
        picture = Image.new("RGB", (8, 8))
        picture.info["xmp"] = xmp
        with caplog.at_level(logging.WARNING):
            opened = open_image(picture)
        assert "xmp" not in opened.close(opened.tensor).info
        assert picture.info["xmp"] == xmp  # the caller's own
        assert "has XMP that refers to" in caplog.text


def test_xmp_in_utf_16() -> None:
    xmp = packet(CAMERA, 'GCamera:MotionPhoto="1"').decode().encode("utf-16")
    kept, found = without_pointers(xmp)
    assert found == ["a motion photo's film"]
    assert b"MotionPhoto" not in kept
