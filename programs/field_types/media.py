"""Images, sounds and files as fields of a signature.

What holds here: making a value from an address, bytes or an array touches neither disk nor network; `from_path` and
`from_url` do, when the program says so. What a model writes is never opened or fetched. Content travels as a data URL
(RFC 2397) inside the value, so that examples with media can be saved.
"""

from __future__ import annotations

import base64
import io
import mimetypes
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, model_validator

from tracedsl.diagnostics import TracedslError
from tracedsl.programs.field_types.base import Type, media
from tracedsl.programs.lm.base import MediaPart

LARGEST_DOWNLOAD = 64 << 20
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"BM", "image/bmp"),
          (b"%PDF", "application/pdf"), (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"), (b"ID3", "audio/mpeg"),
          (b"\xff\xfb", "audio/mpeg"))


class MediaError(TracedslError, ValueError):
    """An image, sound or file that cannot be made."""


class _Media(Type):
    field_role: ClassVar[str] = "media"
    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, text: str) -> Self:
        raise ValueError(f"a model's text is no {cls.__name__}")


class Image(_Media):
    """`Image("https://...")`, `Image(png_bytes)`, `Image(pil_image)`, `Image(array)`, `Image.from_path("x.png")`.

    Args:
        source: an http(s), gs or data address, the bytes of an image file, a PIL image, or an array of shape (height,
            width), (height, width, 3) or (height, width, 4) with dtype uint8.
    """

    url: str

    def __init__(self, source: Any = None, /, **data: Any) -> None:
        if source is not None:
            data["url"] = source.get("url") if isinstance(source, Mapping) else _image_url(source)
        super().__init__(**data)

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, data: Any) -> Any:
        return data if isinstance(data, (Mapping, cls)) else {"url": _image_url(data)}

    def format(self) -> MediaPart:
        return media("image", self.url)

    @classmethod
    def from_path(cls, path: str | Path, media_type: str | None = None) -> Self:
        return cls(_data_url(*_read(path, media_type)))

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 30.0) -> Self:
        """Fetch an image now and hold its content; `Image(url)` leaves the fetching to the endpoint."""
        return cls(_data_url(*_fetch(url, timeout)))

    def __repr__(self) -> str:
        return f"Image({_short(self.url)})"

    __str__ = __repr__


class Audio(_Media):
    """A sound: base64 text in `data`, its kind in `audio_format` ("wav", "mp3", ...)."""

    data: str
    audio_format: str

    def __init__(self, source: Any = None, /, **data: Any) -> None:
        if isinstance(source, (bytes, bytearray)):
            data = {"data": _base64(bytes(source)), "audio_format": _kind(bytes(source), "audio/wav"), **data}
        elif isinstance(source, str):
            data = {**_from_data_url(source), **data}
        elif source is not None:
            raise MediaError("P020", f"a sound cannot be made from {type(source).__name__}",
                             hint="give bytes or a data URL, or use Audio.from_path, Audio.from_url, Audio.from_array")
        super().__init__(**data)

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, data: Any) -> Any:
        if isinstance(data, str):
            return _from_data_url(data)
        if isinstance(data, bytes):
            return {"data": _base64(data), "audio_format": _kind(data, "audio/wav")}
        return data

    def format(self) -> MediaPart:
        return MediaPart("audio", f"audio/{self.audio_format}", self.data)

    @classmethod
    def from_path(cls, path: str | Path) -> Self:
        content, kind = _read(path, None)
        return cls(data=_base64(content), audio_format=_subtype(kind))

    from_file = from_path

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 30.0) -> Self:
        content, kind = _fetch(url, timeout)
        return cls(data=_base64(content), audio_format=_subtype(kind))

    @classmethod
    def from_array(cls, array: Any, sampling_rate: int) -> Self:
        """A WAV file of 16 bits from samples in -1..1 (or int16), of shape (samples,) or (samples, channels)."""
        import numpy as np

        samples = np.asarray(array)
        if samples.dtype != np.int16:
            samples = np.round(np.clip(samples.astype(np.float64), -1, 1) * 32767).astype("<i2")
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as out:
            out.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            out.setsampwidth(2)
            out.setframerate(sampling_rate)
            out.writeframes(samples.tobytes())
        return cls(data=_base64(buffer.getvalue()), audio_format="wav")

    def __repr__(self) -> str:
        return f"Audio({self.audio_format}, {len(self.data) * 3 // 4} bytes)"

    __str__ = __repr__


class File(_Media):
    """A file: its content as a data URL in `file_data`, or the `file_id` of one that the endpoint has."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept(cls, data: Any) -> Any:
        if isinstance(data, bytes):
            return {"file_data": _data_url(data, _kind(data, "application/octet-stream", whole=True))}
        if isinstance(data, str):
            if not data.startswith("data:"):
                raise ValueError("a file as text has to be a data URL; read one with File.from_path(...)")
            return {"file_data": data}
        if isinstance(data, Mapping) and not any(data.get(name) for name in ("file_data", "file_id")):
            raise ValueError("a file needs file_data or file_id")
        return data

    def format(self) -> MediaPart:
        if self.file_id is not None:
            return MediaPart("file", url=self.file_id, name=self.filename or "")
        return media("file", self.file_data or "", self.filename or "")

    @classmethod
    def from_path(cls, path: str | Path, filename: str | None = None, mime_type: str | None = None) -> Self:
        return cls(file_data=_data_url(*_read(path, mime_type)), filename=filename or Path(path).name)

    @classmethod
    def from_bytes(cls, file_bytes: bytes, filename: str | None = None, mime_type: str | None = None) -> Self:
        kind = mime_type or _kind(file_bytes, "application/octet-stream", whole=True)
        return cls(file_data=_data_url(file_bytes, kind), filename=filename)

    @classmethod
    def from_url(cls, url: str, filename: str | None = None, *, timeout: float = 30.0) -> Self:
        return cls(file_data=_data_url(*_fetch(url, timeout)), filename=filename or url.rsplit("/", 1)[-1])

    @classmethod
    def from_file_id(cls, file_id: str, filename: str | None = None) -> Self:
        return cls(file_id=file_id, filename=filename)

    def __repr__(self) -> str:
        what = self.file_id or _short(self.file_data or "")
        return f"File({what}{f', {self.filename!r}' if self.filename else ''})"

    __str__ = __repr__


def _image_url(source: Any) -> str:
    """The address of an image, or its content as one."""
    if isinstance(source, Image):
        return source.url
    if isinstance(source, str):
        if source.startswith(("http://", "https://", "gs://", "data:")):
            return source
        raise MediaError("P020", f"{source[:60]!r} is not the address of an image",
                         hint="read a file with Image.from_path(...)")
    if isinstance(source, (bytes, bytearray)):
        return _data_url(bytes(source), _kind(bytes(source), "image/png", whole=True))
    if hasattr(source, "__array_interface__") and not hasattr(source, "save"):
        source = _pil_image(source)
    if hasattr(source, "save") and hasattr(source, "mode"):  # a PIL image
        buffer = io.BytesIO()
        form = source.format if getattr(source, "format", None) in ("PNG", "JPEG", "GIF", "WEBP") else "PNG"
        source.save(buffer, format=form)
        return _data_url(buffer.getvalue(), f"image/{form.lower()}")
    raise MediaError("P020", f"an image cannot be made from {type(source).__name__}",
                     hint="give an address, bytes, a PIL image or a uint8 array")


def _pil_image(array: Any) -> Any:
    try:
        from PIL import Image as pil
    except ImportError as error:
        raise MediaError("P020", "an image from an array needs the package pillow", why=str(error),
                         hint="pip install pillow") from error
    try:
        return pil.fromarray(array)
    except (TypeError, ValueError) as error:
        raise MediaError("P020", "the array is no image", why=str(error),
                         hint="give shape (height, width), (height, width, 3) or (height, width, 4), uint8") from None


def _read(path: str | Path, media_type: str | None) -> tuple[bytes, str]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise MediaError("P020", f"cannot read {path}", why=error.strerror or str(error)) from None
    guessed = media_type or mimetypes.guess_type(str(path))[0]
    return content, guessed or _kind(content, "application/octet-stream", whole=True)


def _fetch(url: str, timeout: float) -> tuple[bytes, str]:
    """Content and media type of an http(s) address. Raises `MediaError`, also above `LARGEST_DOWNLOAD` bytes."""
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise MediaError("P020", f"{url[:60]!r} is no http or https address")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as reply:
            content, kind = reply.read(LARGEST_DOWNLOAD + 1), reply.headers.get_content_type()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise MediaError("P020", f"cannot fetch {url[:120]}", why=str(error)) from None
    if len(content) > LARGEST_DOWNLOAD:
        raise MediaError("P020", f"{url[:120]} is larger than {LARGEST_DOWNLOAD >> 20} MiB")
    return content, kind


def _kind(content: bytes, otherwise: str, *, whole: bool = False) -> str:
    """The media type by the first bytes; its second half alone unless `whole`."""
    kind = next((kind for magic, kind in _MAGIC if content.startswith(magic)), otherwise)
    if content[:4] == b"RIFF":
        kind = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(content[8:12], kind)
    return kind if whole else _subtype(kind)


def _subtype(kind: str) -> str:
    short = kind.split("/")[-1].removeprefix("x-")
    return {"mpeg": "mp3", "wave": "wav"}.get(short, short)


def _from_data_url(url: str) -> dict[str, str]:
    part = media("audio", url)
    if not part.data:
        raise MediaError("P020", f"{url[:60]!r} is no data URL of a sound", hint="fetch it with Audio.from_url(...)")
    return {"data": part.data, "audio_format": _subtype(part.media_type)}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{_base64(content)}"


def _short(url: str) -> str:
    head, _, data = url.partition(",")
    return f"{head}, {len(data) * 3 // 4} bytes" if url.startswith("data:") else repr(url)
