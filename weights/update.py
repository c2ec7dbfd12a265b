"""Make a training run's model a built-in one: python weights/update.py RUN NAME [--default] [--summary TEXT]

Copies RUN/model.safetensors to weights/NAME.safetensors and enters it in the manifest. The card is written by hand.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

from latentzip.bench.metrics import trained_on
from latentzip.zoo.checkpoints import MODEL_NAME, read_config, read_metadata

FOLDER = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--default", action="store_true")
    parser.add_argument("--summary")
    arguments = parser.parse_args()

    source, target = arguments.run / MODEL_NAME, FOLDER / f"{arguments.name}.safetensors"
    metadata, config = read_metadata(source), read_config(source)  # before anything is replaced
    path = FOLDER / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {"default": arguments.name, "models": {}}
    if arguments.default:
        manifest["default"] = arguments.name
    old = manifest["models"].get(arguments.name, {})
    manifest["models"][arguments.name] = {
        "file": target.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "latent_fingerprint": metadata["latent_fingerprint"],
        "decoder_fingerprint": metadata["decoder_fingerprint"],
        "regularizer": config.regularizer,
        "factor": config.factor,
        "license": old.get("license", "Apache-2.0"),
        "summary": arguments.summary or old.get("summary", ""),
        # what earlier runs were trained on stays; begin anew by hand after a random start
        "trained_on": sorted(trained_on(json.loads(metadata["settings"]), old.get("trained_on", []))),
    }
    shutil.copyfile(source, target)
    path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    print(f"{target}: {metadata['steps']} steps, {metadata['minutes']} minutes")


if __name__ == "__main__":
    main()
