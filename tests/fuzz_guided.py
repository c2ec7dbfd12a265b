"""Coverage-guided fuzzing of whole files, by hand: `python tests/fuzz_guided.py CORPUS -max_total_time=3600`.

Needs `pip install atheris`. Each input is tried as it is, with its checksums made right, and as a file that passes the
container's checks, so that what lies behind them is reached: metadata, payload, pixels. CORPUS is a folder that is
filled and kept. Anything but our errors is a finding, and so is what takes 10 seconds or 2 GiB.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["latentzip"]):
    from fuzz import SMALL_TILES, forced, models, read_all, repaired, samples

    from latentzip.container import pack


def main() -> None:
    SMALL_TILES.start()
    loaded = models()
    corpus = Path(sys.argv[1])
    corpus.mkdir(exist_ok=True)
    for number, (_, container) in enumerate(samples()):
        data = pack(container)
        if len(data) < 20_000:
            (corpus / f"sample-{number}").write_bytes(data)

    def try_one(data: bytes) -> None:
        read_all(data, loaded)
        read_all(repaired(data), loaded)
        read_all(forced(data, list(loaded)), loaded)

    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048", "-max_len=20000"], try_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
