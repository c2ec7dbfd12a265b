"""Formats that other packages teach Pillow. They are imported when the first such picture comes, and not before."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
JXL_CODESTREAM, JXL_CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"


@dataclass(frozen=True)
class Plugin:
    """A package that reads a format: its module, the format's suffixes in lower case, and how to know and to begin."""

    format: str
    package: str
    module: str
    suffixes: frozenset[str]
    recognises: Callable[[bytes], bool]  # by the first bytes of a file, twelve at least
    register: Callable[[], None]  # raises ImportError

    @property
    def is_there(self) -> bool:
        return find_spec(self.module) is not None

    def explain(self) -> str:
        """Of a picture that is of this format, and was not read: why."""
        if self.is_there:
            return f"begins as {self.format} does, but {self.package} cannot read it: convert it to PNG first"
        return f"is {self.format}, which needs {self.package}: pip install 'latentzip[formats]', or convert it to PNG"


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS


def is_jxl(head: bytes) -> bool:
    return head.startswith((JXL_CODESTREAM, JXL_CONTAINER))


def _register_heif() -> None:
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _register_jxl() -> None:
    import pillow_jxl  # noqa: F401  (which registers itself)


PLUGINS = (
    Plugin(
        *("HEIC", "pillow-heif", "pillow_heif", frozenset({".heic", ".heif", ".hif"})),
        recognises=_is_heif,
        register=_register_heif,
    ),
    Plugin(
        *("JPEG XL", "pillow-jxl-plugin", "pillow_jxl", frozenset({".jxl"})),
        recognises=is_jxl,
        register=_register_jxl,
    ),
)


def register_for(head: bytes) -> None:
    """Let Pillow open a file that begins so, where a package that is here can read it."""
    for plugin in PLUGINS:
        if plugin.recognises(head) and plugin.is_there:
            plugin.register()


def plugin_suffixes() -> frozenset[str]:
    """The suffixes of what could be opened."""
    return frozenset().union(*(plugin.suffixes for plugin in PLUGINS if plugin.is_there))
