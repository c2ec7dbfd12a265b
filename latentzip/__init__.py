"""Neural image codec around a perceptual autoencoder."""

__version__ = "0.1.0"
