"""From encoded bytes to an upright RGB image, within the limits and with typed errors only."""

from __future__ import annotations

from io import BytesIO

from PIL import ExifTags, Image, ImageFile

from ._errors import ImageCorruptError, ImageError, ImageFormatError, ImageTooLargeError, one_line
from ._gif_extensions import MAX_EXTENSION_BYTES, extension_bytes
from ._image_formats import NAMES, ImageFormat, name_of_unsupported, recognise
from ._jpeg_scans import MAX_SCANS, count_scans
from ._pillow_warnings import pillow_warnings_ignored
from ._tiff_strips import MAX_STRIPS, count_strips

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


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame of the encoded image, RGB and upright.

    The size is judged by the header, before any pixel is decoded.
    """
    known = recognise(data)
    if known is None:
        other = name_of_unsupported(data)
        if other is None:
            raise ImageFormatError(f"not an image ({NAMES} expected)")
        raise ImageFormatError(f"{other} is not decoded here: convert it to one of {NAMES}")
    if known.name == "JPEG" and count_scans(data) > MAX_SCANS:
        raise ImageFormatError(f"a JPEG of more than {MAX_SCANS} scans, which no camera or editor writes")
    if known.name == "TIFF" and count_strips(data) > MAX_STRIPS:
        raise ImageFormatError(f"a TIFF cut into more than {MAX_STRIPS:,} strips or tiles")
    if known.name == "GIF" and extension_bytes(data) > MAX_EXTENSION_BYTES:
        raise ImageFormatError(f"a GIF with more than {MAX_EXTENSION_BYTES:,} bytes of comments")
    with pillow_warnings_ignored():
        return _to_rgb(_open(data, known, max_pixels), known.name)


def upright_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """A PIL image of the caller's, RGB and upright; the image itself where it is both already."""
    require_pixels(image.size, max_pixels)
    with pillow_warnings_ignored():
        return _to_rgb(image, image.format or "image")


def require_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Refuses a `(width, height)` over the limit."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageFormatError(f"no pixels: {width} × {height}")
    if width * height > max_pixels:
        raise ImageTooLargeError(f"{width} × {height} is more than {max_pixels:,} pixels, the limit set by max_pixels")


def _open(data: bytes, known: ImageFormat, max_pixels: int) -> ImageFile.ImageFile:
    try:
        image = known.open(BytesIO(data))
    except (MemoryError, Image.DecompressionBombError):
        raise ImageTooLargeError(f"{known.name} of a size that does not fit into memory") from None
    except Exception as error:
        raise _corrupt(known.name, error) from None
    require_pixels(image.size, max_pixels)
    if any(tile[0] in Image.DECODERS for tile in image.tile):
        # Decoders in this registry are written in Python: a few bytes of a run-length-encoded BMP keep them busy for
        # minutes.
        raise ImageFormatError(f"a run-length-encoded {known.name} is not decoded: save it uncompressed or as PNG")
    return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        transposition = _TRANSPOSITIONS.get(_orientation(image))
        if transposition is not None:
            image = image.transpose(transposition)
            # Pillow keeps what said that it has to be turned, and the image may come back here.
            image.info = {key: value for key, value in image.info.items() if key not in _ORIENTATION_KEYS}
        return image if image.mode == "RGB" else image.convert("RGB")
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise ImageTooLargeError(f"{name} of a size that does not fit into memory") from None
    except Exception as error:
        raise _corrupt(name, error) from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the EXIF block is damaged, as viewers do."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _corrupt(name: str, error: Exception) -> ImageCorruptError:
    detail = one_line(str(error), 120)
    if "truncated" in detail.lower() or isinstance(error, EOFError):
        return ImageCorruptError(f"truncated {name}: the file ends before the image does")
    return ImageCorruptError(f"damaged {name}" + (f" ({detail})" if detail else ""))
