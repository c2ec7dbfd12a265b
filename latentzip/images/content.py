"""What a file is of which Pillow makes no picture, told by how it begins, and what to do with it."""

from latentzip.images.plugins import PLUGINS

HEAD = 4096  # bytes that are enough to tell
RAW = "is a camera's raw file: develop it as TIFF or PNG first, with a raw converter"
ARCHIVE = "is an archive, not a picture: unpack it first"
VIDEO = "is a video, not a picture: extract the frame that you want"
TIFF = (
    "is a TIFF that Pillow cannot read, because it is damaged, or of another kind as cameras' raw files are:"
    " convert it to PNG first"
)
BROAD = "holds light of more range than a display has: convert it to PNG in sRGB first"
# where, what, and what it is; several of one kind stand together
SIGNATURES: tuple[tuple[int, tuple[bytes, ...], str], ...] = (
    (0, (b"\x89LTZ\r\n\x1a\n",), "is a .lz file already: latentzip decode makes a picture of it"),
    (0, (b"version https://git-lfs",), "is a git-lfs pointer, not the picture: git lfs pull fetches what it points to"),
    (0, (b"/annex/objects/",), "is a git-annex pointer, not the picture: git annex get fetches what it points to"),
    (0, (b"%!PS",), "is PostScript, a program that draws, not a picture: render it as PNG first"),
    (0, (b"%PDF-",), "is a PDF document, not a picture: render its page as PNG first"),
    (0, (b"8BPS\0\2",), "is a large Photoshop document (PSB), which Pillow does not read: export it as PNG first"),
    (0, (b"gimp xcf",), "is GIMP's own file, which Pillow does not read: export it as PNG first"),
    (0, (b"v/1\1", b"#?RADIANCE", b"#?RGBE"), BROAD),
    (128, (b"DICM",), "is a DICOM file, which Pillow does not read: export it as PNG first"),
    (0, (b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM", b"IIRO", b"IIRS", b"MMOR", b"IIU\0"), RAW),
    (6, (b"HEAPCCDR",), RAW),
    (4, (b"ftypcrx ",), RAW),
    (0, (b"LZIP", b"PK\3\4", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"7z\xbc\xaf", b"Rar!", b"(\xb5/\xfd"), ARCHIVE),
    (4, (b"ftypisom", b"ftypiso2", b"ftypmp4", b"ftypqt", b"ftypM4V", b"ftyp3g"), VIDEO),
    (8, (b"AVI LIST",), VIDEO),
    (0, (b"\x1aE\xdf\xa3",), VIDEO),
    (0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TIFF),
)
# Formats that Pillow reads, if they are whole
READABLE: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavi", "AVIF"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (0, b"BM", "BMP"),
    (0, b"8BPS\0\1", "PSD"),
)
WHITESPACE = b" \t\r\n\f\0"


def explain(head: bytes) -> str:
    """The beginning of a file, HEAD bytes or all of it -> the rest of a sentence: what it is, and a remedy."""
    if not head:
        return "is empty: get the file again"
    if not head.strip(b"\0"):
        return "begins with zeros alone, as files do that got lost in copying: get it again"
    for start, signatures, what in SIGNATURES:
        if head.startswith(signatures, start):
            return what
    for plugin in PLUGINS:
        if plugin.recognises(head):
            return plugin.explain()
    for start, signature, name in READABLE:
        if head.startswith(signature, start):
            return f"begins as {name} does, but is cut short or damaged: get it again"
    return _explain_text(head) or "not a picture that Pillow can read: convert it to PNG first"


def _explain_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(WHITESPACE).lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "is a web page, not a picture: get the picture itself, from its own address"
    if b"<svg" in text and text.startswith(b"<"):
        return "is an SVG drawing, not a picture: render it as PNG first"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head) and b"\x7f" not in head and head.isascii():
        return "is text, not a picture: get the picture itself"
    return None
