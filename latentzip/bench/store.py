"""What was measured, kept as JSON lines as soon as it is known, so that an interrupted comparison can go on.

A folder with results.jsonl, the coded files themselves (files/), and what the Fréchet distance needs of each decoded
picture (patches/). Later lines add to earlier ones of the same picture, codec and setting.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from latentzip.bench.frechet import Patches
from latentzip.errors import BenchError
from latentzip.files import write_atomically, write_bytes

RESULTS, FILES, PATCHES = "results.jsonl", "files", "patches"
VERSION = 1  # of the lines; results of another are not used


@dataclass(frozen=True)
class Key:
    picture: str  # digest of its pixels
    codec: str  # the codec's key
    setting: int


@dataclass
class Entry:
    """metrics: by the metric's cache key; seconds: by what was timed; bytes: of the file, 0 while there is none."""

    bytes: int = 0
    file: str = ""  # below the folder
    seconds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)


class Store:
    def __init__(self, folder: Path) -> None:
        """Open a folder, or make it. Raises BenchError where that fails, or its results cannot be read."""
        self.folder = folder
        self.path = folder / RESULTS
        self._entries: dict[Key, Entry] = {}
        self._notes: dict[str, Any] = {}
        try:
            for name in (FILES, PATCHES):
                (folder / name).mkdir(parents=True, exist_ok=True)
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
            self._out = self.path.open("a", encoding="utf-8")
            if self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n"):
                self._out.write("\n")  # the last line was cut by a crash
        except OSError as error:
            raise BenchError(f"{folder}: cannot be used ({error.strerror}): give --out another folder") from None
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        """A line that is damaged, or of another version, is passed over: it is measured again."""
        try:
            record = json.loads(line)
            if record.pop("version") != VERSION:
                return
            if "note" in record:
                self._notes[record["note"]] = record["value"]
                return
            entry = self.entry(Key(record["picture"], record["codec"], record["setting"]))
            entry.bytes, entry.file = record["bytes"], record["file"]
            entry.seconds.update(record["seconds"])
            entry.metrics.update(record["metrics"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return

    def entry(self, key: Key) -> Entry:
        return self._entries.setdefault(key, Entry())

    def sizes(self, picture: str, codec: str) -> tuple[tuple[int, int], ...]:
        """Settings and bytes of the files of a picture by a codec."""
        found = self._entries.items()
        return tuple((k.setting, e.bytes) for k, e in found if (k.picture, k.codec) == (picture, codec) and e.bytes)

    def add(self, key: Key, entry: Entry) -> None:
        """Keep what is known of a picture at a setting. Raises BenchError where the disk is full."""
        self._entries[key] = entry
        self._append({**vars(key), **vars(entry)})

    def note(self, name: str) -> Any:
        return self._notes.get(name)

    def keep_note(self, name: str, value: Any) -> None:
        """Something else that is not to be measured twice: JSON. Raises BenchError."""
        self._notes[name] = value
        self._append({"note": name, "value": value})

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._out.write(json.dumps({"version": VERSION, **record}) + "\n")
            self._out.flush()
        except OSError as error:
            raise BenchError(f"{self.path}: cannot be written ({error.strerror}): make room") from None

    def close(self) -> None:
        self._out.close()

    def keep_file(self, picture: str, name: str, data: bytes) -> str:
        """Write a coded file; -> its place below the folder. Raises OutputError."""
        place = Path(FILES, picture, name)
        (self.folder / place.parent).mkdir(exist_ok=True)
        write_bytes(self.folder / place, data, overwrite=True)
        return place.as_posix()

    def file(self, entry: Entry) -> bytes | None:
        """The coded file as it was measured; None where it was removed or changed in size."""
        try:
            data = (self.folder / entry.file).read_bytes() if entry.file else b""
        except OSError:
            return None
        return data if data and len(data) == entry.bytes else None

    def keep_patches(self, name: str, patches: Patches) -> None:
        """Raises OutputError."""
        write_atomically(self._patches(name), lambda file: np.save(file, patches), overwrite=True)

    def has_patches(self, name: str) -> bool:
        return self._patches(name).exists()

    def patches(self, name: str) -> Patches | None:
        """name: the digest of an original, or a key's text."""
        try:
            found: Patches = np.load(self._patches(name), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found

    def _patches(self, name: str) -> Path:
        return self.folder / PATCHES / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"


def file_name(codec: str, label: str, suffix: str) -> str:
    """A name for a coded file: "avif-q20.avif"."""
    return f"{codec}-{re.sub(r'[^0-9A-Za-z.]+', '', label)}{suffix}"
