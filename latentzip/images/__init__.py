"""Pictures: Pillow's on one side, arrays on the other, with all that belongs to them. No torch."""

from latentzip.images.bounds import limit_pillow
from latentzip.images.picture import ALPHA_KEPT, BitDepth, Metadata, MetadataWish, Picture, Pixels
from latentzip.images.reading import picture_suffixes, read_image, take_image
from latentzip.images.transparency import check_alpha_wish
from latentzip.images.writing import SAVE_OPTIONS, check_output_wishes, format_of, image_bytes, to_image

__all__ = [
    "ALPHA_KEPT",
    "SAVE_OPTIONS",
    "BitDepth",
    "Metadata",
    "MetadataWish",
    "Picture",
    "Pixels",
    "check_alpha_wish",
    "check_output_wishes",
    "format_of",
    "image_bytes",
    "limit_pillow",
    "picture_suffixes",
    "read_image",
    "take_image",
    "to_image",
]
