"""Residual streams, and the decoder built on them, as PyTorch modules."""

from wavroute.nn.decoder import Decoder
from wavroute.nn.residual import ResidualStream
from wavroute.nn.state import State

__all__ = ["Decoder", "ResidualStream", "State"]
