"""The families of autoencoders: a config of each, its encoder and its decoder, and configs as JSON."""

import dataclasses
import json
import reprlib
from typing import Any

import torch
from torch import nn

from latentzip.errors import ModelError
from latentzip.models.config import CONFIG_VERSION, AutoencoderConfig
from latentzip.models.ldm import LdmConfig, LdmDecoder, LdmEncoder
from latentzip.models.lite import LiteDecoder, LiteEncoder
from latentzip.models.tiny import TinyConfig, TinyDecoder, TinyEncoder

ModelConfig = AutoencoderConfig | LdmConfig | TinyConfig
PublicConfig = LdmConfig | TinyConfig  # of models that others have trained
FAMILIES: dict[str, type[ModelConfig]] = {c.family: c for c in (AutoencoderConfig, LdmConfig, TinyConfig)}


def make_encoder(config: ModelConfig) -> nn.Module:
    """An encoder on `meta`, waiting for its tensors: images (B, 3, H, W) in [-1, 1] -> latents or moments."""
    with torch.device("meta"):
        if isinstance(config, LdmConfig):
            return LdmEncoder(config)
        return TinyEncoder(config) if isinstance(config, TinyConfig) else LiteEncoder(config)


def make_decoder(config: ModelConfig) -> nn.Module:
    """A decoder on `meta`: latents (B, C, h, w) and rates (B,) -> images (B, 3, f h, f w), about [-1, 1]."""
    with torch.device("meta"):
        if isinstance(config, LdmConfig):
            return LdmDecoder(config)
        return TinyDecoder(config) if isinstance(config, TinyConfig) else LiteDecoder(config)


def config_to_json(config: ModelConfig) -> str:
    """Inverse of `config_from_json`."""
    return json.dumps({"config_version": CONFIG_VERSION, "family": config.family, **dataclasses.asdict(config)})


def config_from_json(text: str) -> ModelConfig:
    """Raises ModelError for a config that this version cannot build."""
    try:
        fields: dict[str, Any] = json.loads(text)
        version, family = fields.pop("config_version"), fields.pop("family")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(
            f"the model's config is not readable ({reprlib.repr(error)}): fetch or train the model again"
        ) from None
    if version != CONFIG_VERSION or not isinstance(family, str) or family not in FAMILIES:
        raise ModelError(
            f"the model's config has version {reprlib.repr(version)} and family {reprlib.repr(family)}; this latentzip"
            f" knows version {CONFIG_VERSION} of {', '.join(FAMILIES)}: install the latentzip that wrote it"
        )
    build: Any = FAMILIES[family]
    if unknown := fields.keys() - {field.name for field in dataclasses.fields(build)}:
        raise ModelError(
            f"the model's config does not fit this version of latentzip ({reprlib.repr(min(unknown))} is unknown to it)"
        )
    try:
        config: ModelConfig = build(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    except TypeError as error:
        raise ModelError(f"the model's config does not fit this version of latentzip ({error})") from None
    return config


def trainable(config: ModelConfig) -> AutoencoderConfig:
    """The config of a model of our own family. Raises ModelError for others."""
    if isinstance(config, AutoencoderConfig):
        return config
    raise ModelError(f"is of the family {config.family}, which latentzip only encodes and decodes with")
