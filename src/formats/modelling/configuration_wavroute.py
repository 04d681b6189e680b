"""The configuration of a wavroute model: a Llama's, and the residual scheme in `residual`."""

from transformers import LlamaConfig


class WavrouteConfig(LlamaConfig):
    model_type = "wavroute"

    def __init__(self, residual=None, **settings):
        super().__init__(**settings)
        self.residual = residual or {"scheme": "prenorm"}
