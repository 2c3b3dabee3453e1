"""From what a caller hands over as an image to its encoded bytes, and from those to upright RGB.

No more is read, and nothing larger decoded, than the limits allow. Whatever goes wrong is an `ImageError`.
"""

from __future__ import annotations

import inspect
import os
import re
import stat
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from ._errors import (
    ImageCorruptError,
    ImageError,
    ImageFormatError,
    ImageReadError,
    ImageTooLargeError,
    InvalidArgumentError,
    one_line,
)
from ._image_limits import require_few_parts, require_pixels, require_tile
from ._jpeg import endings, scale_down

# Odd metadata and palettes with transparency are none of the caller's concern.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class BinaryFile(Protocol):
    """A file object opened in binary mode; it is read from where it stands and is not closed."""

    def read(self, size: int = ..., /) -> bytes | bytearray | memoryview | None: ...


class AsyncBinaryFile(Protocol):
    """The same with a `read` to be awaited, as Starlette's `UploadFile` and aiofiles have it."""

    def read(self, size: int = ..., /) -> Awaitable[bytes | bytearray | memoryview | None]: ...


RESAMPLING = Image.Resampling.BILINEAR  # `resample=2` of this checkpoint's processor
#: The reason by which `AsyncDeepfakeClient` knows that it has to await `read`.
ASYNC_READ = "its read() is async: pass `await file.read()` or `file.file`"
_ADDRESS = re.compile(r"(?i)data:|file:|[a-z][a-z0-9+.-]+://")


def name_of(source: object) -> str | None:
    """How errors and verdicts call `source`: its path, the name of the file object, or None."""
    if isinstance(source, str):
        return source
    try:
        if isinstance(source, os.PathLike):
            return os.fsdecode(source)
        name = getattr(source, "filename", None) or getattr(source, "name", None)
    except Exception:
        return None  # the caller's own class; what is wrong with it is told when it is read
    return name if isinstance(name, str) and name else None


def read_encoded(source: Any, max_bytes: int) -> bytes:
    """The encoded image in `source`: a path, a bytes-like object or a binary file object.

    Raises:
        ImageReadError: the path is missing, is not a regular file, or cannot be read.
        ImageFormatError: there is not a single byte.
        ImageTooLargeError: there are more than `max_bytes`; no more than one byte beyond them is read.
        InvalidArgumentError: `source` is none of these.
    """
    if isinstance(source, (str, os.PathLike)):
        data = _read_path(source, max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif callable(getattr(source, "read", None)):
        data = _read_file(source, max_bytes)
    else:
        raise InvalidArgumentError(
            "an image must be a path, bytes, a binary file object, a PIL image or a uint8 array of shape "
            f"(height, width, 3), not {type(source).__name__}"
        )
    _require_bytes(len(data), max_bytes)
    if not data:
        raise ImageFormatError("empty file")
    return data


def is_address(text: str) -> bool:
    """Whether `text` is a URL and no path."""
    return _ADDRESS.match(text) is not None


def _require_bytes(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ImageTooLargeError(f"more than {max_bytes:,} bytes, the limit set by max_bytes")


def _read_path(source: str | os.PathLike[Any], max_bytes: int) -> bytes:
    if isinstance(source, str) and is_address(source):
        raise ImageReadError("an address, not a file: fetch it and pass the bytes")
    try:
        path = Path(os.fsdecode(source))
        # Asked before it is opened: opening a pipe waits for its writer, opening some devices acts on them.
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageReadError("a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageReadError("a device, pipe or socket, not a regular file: read it and pass the bytes")
        _require_bytes(status.st_size, max_bytes)
        with path.open("rb", buffering=0) as file:
            return _read_file(file, max_bytes)
    except FileNotFoundError:
        raise ImageReadError("no such file") from None
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character in it
        raise ImageReadError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _read_file(file: BinaryFile, max_bytes: int) -> bytes:
    """What the file gives, up to one byte over the limit."""
    pieces, wanted = [], max_bytes + 1
    while wanted > 0:
        with _read_errors_typed():
            given = file.read(wanted)
        if not (piece := _bytes_of(given)):
            break
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


async def read_async(file: AsyncBinaryFile, max_bytes: int) -> bytes:
    """`_read_file` of a file with a `read` to be awaited."""
    pieces, wanted = [], max_bytes + 1
    while wanted > 0:
        with _read_errors_typed():
            given = await file.read(wanted)
        if not (piece := _bytes_of(given)):
            break
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


@contextmanager
def _read_errors_typed() -> Iterator[None]:
    """A file object is the caller's own code or a network stream: it may raise anything."""
    try:
        yield
    except TypeError as error:
        # Without a size there is no bound on what it reads.
        raise InvalidArgumentError(f"read(size) cannot be called, pass the bytes: {error}") from None
    except Exception as error:
        raise ImageReadError(f"cannot be read: {one_line(str(error)) or type(error).__name__}") from None


def _bytes_of(given: object) -> bytes:
    """What a `read` gave; nothing at the end of the file."""
    if inspect.isawaitable(given):
        if inspect.iscoroutine(given):
            given.close()  # or Python warns that it was never awaited
        raise InvalidArgumentError(ASYNC_READ)
    if isinstance(given, str):
        raise InvalidArgumentError("the file object gives text: open it in binary mode, 'rb'")
    if not isinstance(given, (bytes, bytearray, memoryview, type(None))):
        raise InvalidArgumentError(f"the file object gives {type(given).__name__}, not bytes")
    return bytes(given or b"")


def list_files(path: Path) -> Iterator[Path]:
    """The path itself, or every file below a folder, in the order of their names.

    What has no image's ending is reported, not passed over. Left out are hidden files and links to folders, which may
    lead in a circle; `links_to_folders` names these. Raises `OSError` where a folder cannot be read.
    """
    if not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(folder) / name


def links_to_folders(path: Path) -> Iterator[Path]:
    """Links below a folder that `list_files` does not follow."""
    for folder, folders, _ in os.walk(path, onerror=_raise):
        yield from (link for name in sorted(folders) if (link := Path(folder) / name).is_symlink())


def _raise(error: OSError) -> None:
    raise error


_Open: TypeAlias = Callable[[IO[bytes]], ImageFile.ImageFile]


class _Format(NamedTuple):
    """A format by what its files begin with; `open` is None where it is known by name only."""

    name: str
    begins: bytes
    open: _Open | None = None

    def matches(self, data: bytes) -> bool:
        return re.match(self.begins, data[:4096], re.DOTALL) is not None


# The classes are called by themselves, not through Image.open: that one looks at files in some forty formats, some
# of them decoded in Python, and judges sizes by a limit of the whole process. PPM is left out for the former reason;
# a multi-picture JPEG (MPO) is read as the JPEG it begins with, which is its first picture.
_FORMATS = (
    _Format("JPEG", rb"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    _Format("PNG", rb"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    _Format("WebP", rb"RIFF.{4}WEBP", WebPImagePlugin.WebPImageFile if features.check("webp") else None),
    _Format("GIF", rb"GIF8[79]a", GifImagePlugin.GifImageFile),
    _Format("BMP", rb"BM", BmpImagePlugin.BmpImageFile),
    _Format("TIFF", rb"II[*+]\0|MM\0[*+]", TiffImagePlugin.TiffImageFile),
    # An ISO base media file lists the brands that it conforms to.
    _Format(
        "AVIF", rb".{4}ftyp(.{4}){0,30}?avi[fs]", AvifImagePlugin.AvifImageFile if features.check("avif") else None
    ),
    _Format("HEIC", rb".{4}ftyp(.{4}){0,30}?(hei[cmsx]|hev[cx]|mif1|msf1)"),
    _Format("a video", rb".{4}ftyp"),
    _Format("SVG", rb"(?i)[\xef\xbb\xbf\s]*(<svg|<\?xml.*<svg)"),
    _Format("PDF", rb"(?i)[\xef\xbb\xbf\s]*%pdf"),
    _Format("a web page", rb"(?i)[\xef\xbb\xbf\s]*(<!doctype html|<html)"),
    _Format("JPEG XL", rb"\0\0\0\x0cJXL |\xff\x0a"),
    _Format("JPEG 2000", rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"),
    _Format("Photoshop", rb"8BPS"),
)
_DECODED = ", ".join(each.name for each in _FORMATS if each.open)

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow's `getexif` looks for an orientation.
_ORIENTATION_KEYS = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def decode(data: bytes, max_pixels: int, fast_to: int = 0) -> Image.Image:
    """The first frame of the encoded image, RGB and upright.

    The size is judged by the header, before any pixel is decoded. With `fast_to`, a JPEG four times as wide and
    high, or more, is decoded at a fraction of its size, and resized to `fast_to` × `fast_to`.
    """
    known = next((each for each in _FORMATS if each.matches(data)), None)
    if known is None:
        raise ImageFormatError(f"not an image ({_DECODED} expected)")
    if known.open is None:
        raise ImageFormatError(f"{known.name} is not decoded here: convert it to one of {_DECODED}")
    require_few_parts(known.name, data)
    with _pillow_errors_typed(known.name):
        continued = endings(data) if known.name == "JPEG" else None
        if continued is None:
            return _opened(known.open, data, max_pixels, fast_to)
        return _same(continued, known.open, max_pixels)


def _same(files: list[bytes], open_as: _Open, max_pixels: int) -> Image.Image:
    """What all these files show; `ImageCorruptError` if they differ."""
    image = None
    digests = set()
    for data in files:
        image = None  # one at a time takes memory
        try:
            image = _opened(open_as, data, max_pixels)
        except OSError:
            break
        digests.add(sha256(image.tobytes()).digest())
    if image is None or len(digests) != 1:
        raise ImageCorruptError(_truncated("JPEG"))
    return image


def _opened(open_as: _Open, data: bytes, max_pixels: int, fast_to: int = 0) -> Image.Image:
    image = open_as(BytesIO(data))
    require_pixels(image.size, max_pixels)
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        # Decoders in this registry are written in Python: a few bytes of a run-length-encoded BMP keep them busy
        # for minutes.
        raise ImageFormatError(f"a run-length-encoded {image.format} is not decoded: save it uncompressed or as PNG")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        require_tile(tags.get(TiffImagePlugin.TILEWIDTH, 1), tags.get(TiffImagePlugin.TILELENGTH, 1), max_pixels)
    box = scale_down(image, data, 2 * fast_to) if fast_to else None
    rgb, orientation = _rgb(image)
    del image  # with the buffers of its decoder
    if box is not None:
        rgb = rgb.resize((fast_to, fast_to), RESAMPLING, box)
    return _upright(rgb, orientation)


def upright_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """A PIL image of the caller's, RGB and upright; the image itself where it is both already."""
    require_pixels(image.size, max_pixels)
    with _pillow_errors_typed(image.format or "image"):
        try:
            image.load()
        except Exception as error:
            unread = isinstance(image, ImageFile.ImageFile) and bool(image.tile) and image.fp is None
            if not unread and "closed" not in str(error):
                raise
            raise InvalidArgumentError("the PIL image is closed: classify it before, inside its `with` block") from None
        return _upright(*_rgb(image))


def _rgb(image: Image.Image) -> tuple[Image.Image, int]:
    """The image as RGB, and its EXIF orientation; the image itself where it is RGB."""
    image.load()
    orientation = _orientation(image)
    image = _eight_bit(image)
    return image if image.mode == "RGB" else image.convert("RGB"), orientation


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transposition = _TRANSPOSITIONS.get(orientation)
    if transposition is None:
        return image
    image = image.transpose(transposition)
    # Pillow keeps what said that it has to be turned, and the image may come back here.
    image.info = {key: value for key, value in image.info.items() if key not in _ORIENTATION_KEYS}
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey as mode "L": its high byte, which is what Pillow takes of 16-bit colour. It clips grey at 255."""
    if image.mode in ("I", "F"):
        raise ImageFormatError(
            "32-bit or float pixels, of which no range is stated: scale them to 0…255 and save 8 bits per channel"
        )
    if not image.mode.startswith("I;16"):
        return image
    tags: Any = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = 12 if tags.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else 16
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    # Pillow inverts grey of which 0 is white at 8 bits, not at 16.
    return Image.fromarray(~grey if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0 else grey)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the EXIF block is damaged, as viewers do."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


# Of a TIFF with float colour, a JPEG of 12 bits, a BMP of a rare layout: nothing is damaged.
_UNKNOWN_KIND = re.compile("unknown pixel mode|cannot handle|unsupported", re.IGNORECASE)


@contextmanager
def _pillow_errors_typed(name: str) -> Iterator[None]:
    """Makes an `ImageError` of whatever Pillow raises about an image of format `name`."""
    try:
        yield
    except (ImageError, InvalidArgumentError):
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise ImageTooLargeError(f"{name} of a size that does not fit into memory") from None
    except Exception as error:
        detail = one_line(str(error), 120)
        if _UNKNOWN_KIND.search(detail):
            raise ImageFormatError(f"a kind of {name} that is not decoded ({detail}): save it as PNG or JPEG") from None
        if "truncated" in detail.lower() or isinstance(error, EOFError):
            raise ImageCorruptError(_truncated(name)) from None
        raise ImageCorruptError(f"damaged {name}" + (f" ({detail})" if detail else "")) from None


def _truncated(name: str) -> str:
    return f"truncated {name}: the file ends before the image does"
