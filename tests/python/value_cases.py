"""The models whose values and gradients are compared: id -> the request to wavroute_dump."""

ODD = {"layers": 5, "width": 30, "heads": 5, "kv_heads": 1, "hidden": 37, "context": 11,
       "vocab": 23, "batch": 3}
GROUPED = {"heads": 4, "kv_heads": 2}
TIED = {"tie_embeddings": True}
FIVE = {"layers": 5}
SIX = {"layers": 6}

CASES: dict[str, dict] = {}


def add(name: str, scheme: str, options: dict | None = None, **spec) -> None:
    assert name not in CASES
    CASES[name] = spec | {"residual": {"scheme": scheme} | (options or {})}


def program(layers: str) -> dict:
    """Programs are for evaluation; the dump takes the gradients of that pass anyway."""
    return {"program": layers, "training": False}


add("prenorm", "prenorm")
add("prenorm-grouped-tied", "prenorm", **GROUPED, **TIED)
add("prenorm-odd-sizes", "prenorm", **ODD)
add("prenorm-program", "prenorm", **program("0-1,2x3"))

add("rezero", "rezero")
add("rezero-without-norms", "rezero", {"norm": "none"}, **TIED)
add("rezero-program", "rezero", **program("1x2,3"))
add("layerscale", "layerscale", **GROUPED)
add("layerscale-program", "layerscale", **program("0,2x2,3"))
add("block_layerscale-K2", "block_layerscale", {"blocks": 4})
add("block_layerscale-K3", "block_layerscale", {"blocks": 4}, **SIX)
add("block_layerscale-short-last-block", "block_layerscale", {"blocks": 3}, **FIVE)
add("block_layerscale-N1", "block_layerscale", {"blocks": 1})
add("block_layerscale-program", "block_layerscale", {"blocks": 2}, **program("0,2x2,3"))

add("layerdrop-uniform", "layerdrop", {"p": 0.5}, **SIX)
add("layerdrop-linear", "layerdrop", {"p": 0.6, "schedule": "linear"}, **SIX)
add("layerdrop-rescale", "layerdrop", {"p": 0.4, "rescale": True}, **SIX)
add("layerdrop-linear-rescale", "layerdrop",
    {"p": 0.7, "schedule": "linear", "rescale": True}, **SIX)
add("layerdrop-p0", "layerdrop", {"p": 0.0, "rescale": True})
add("layerdrop-evaluation", "layerdrop", {"p": 0.7, "rescale": True}, training=False)
add("layerdrop-every-other", "layerdrop", {"p": 0.5, "rescale": True}, **FIVE, **program("0,2,4"))

add("gated", "gated")
add("gated-per-channel", "gated", {"per_channel": True}, **GROUPED)
add("gated-windows", "gated", {"windows": [1, 3, 16]}, **ODD)
add("gated-frozen", "gated", step=0)
add("gated-frozen-last-step", "gated", {"per_channel": True}, step=9)
add("gated-first-step-after", "gated", step=10)
add("gated-frozen-evaluation", "gated", step=9, training=False)
add("gated-rank", "gated", {"rank": 5})
add("gated-frozen-longer", "gated", {"freeze": 0.6}, step=59)
add("gated-program", "gated", **program("0-1,2x2"))

add("act", "act")
add("act-epsilon-tau", "act", {"epsilon": 0.2, "tau": 0.5}, **SIX)
add("act-shared", "act", {"shared": True}, **SIX)
add("act-odd-sizes", "act", {"tau": 0.1}, **ODD)
add("act-evaluation", "act", {"tau": 0.1}, training=False)

add("denseformer", "denseformer")
add("denseformer-odd-sizes", "denseformer", **ODD)
add("denseformer-dilation", "denseformer", {"dilation": 2}, **GROUPED, **TIED)
add("denseformer-period", "denseformer", {"period": 2})
add("denseformer-dilation-period", "denseformer", {"dilation": 2, "period": 3}, **SIX)
add("denseformer-evaluation", "denseformer", training=False)
add("denseformer-program-skips", "denseformer", **program("0,2-3"))
add("denseformer-program-repeats", "denseformer", **program("0-1,2x3,3"))
add("denseformer-program-goes-back", "denseformer", **program("0-2,1,3,0"))
add("denseformer-dilation-program", "denseformer", {"dilation": 2}, **SIX, **program("1-3,1x2,5"))
add("denseformer-period-program", "denseformer", {"period": 2}, **SIX, **program("0,2x2,1,3-5"))

add("mhc_lite", "mhc_lite")
add("mhc_lite-two", "mhc_lite", {"streams": 2}, **GROUPED, **TIED)
add("mhc_lite-three-odd-sizes", "mhc_lite", {"streams": 3}, **ODD)
add("mhc_lite-five", "mhc_lite", {"streams": 5}, layers=2)
add("mhc_lite-evaluation", "mhc_lite", training=False)
add("mhc_lite-program", "mhc_lite", **program("0,2x2,1"))

add("full_attnres", "full_attnres")
add("full_attnres-odd-sizes", "full_attnres", **ODD)
add("full_attnres-grouped-tied", "full_attnres", **GROUPED, **TIED)

add("block_attnres-K4", "block_attnres", {"blocks": 2})
add("block_attnres-K2", "block_attnres", {"blocks": 4})
add("block_attnres-K1-NM", "block_attnres", {"blocks": 8})
add("block_attnres-K3", "block_attnres", {"blocks": 4}, **SIX)
add("block_attnres-N1", "block_attnres", {"blocks": 1})
add("block_attnres-short-last-block", "block_attnres", {"blocks": 3}, **ODD)
add("block_attnres-program", "block_attnres", {"blocks": 2}, **program("0-1,3x2"))
add("block_attnres-K3-program", "block_attnres", {"blocks": 4}, **SIX, **program("0-2,1,4x2"))

add("haares-K4", "haares", {"blocks": 2})
add("haares-K2", "haares", {"blocks": 4})
add("haares-N1", "haares", {"blocks": 1})
add("haares-finished-only", "haares", {"blocks": 2, "partial_details": False})
add("haares-short-last-block", "haares", {"blocks": 3}, **ODD)
add("haares-program", "haares", {"blocks": 2}, **program("0,2x2,3"))

add("wav-K4", "wav", {"blocks": 2})
add("wav-K2", "wav", {"blocks": 4})
add("wav-K6", "wav", {"blocks": 2}, **SIX)
add("wav-N1", "wav", {"blocks": 1})
add("wav-finished-only", "wav", {"blocks": 2, "partial_details": False})
add("wav-finished-only-K2", "wav", {"blocks": 4, "partial_details": False})
add("wav-phase", "wav", {"blocks": 2, "details": ["phase"]})
add("wav-split", "wav", {"blocks": 2, "details": ["split"]}, **TIED)
add("wav-no-details", "wav", {"blocks": 2, "details": []})
add("wav-short-last-block", "wav", {"blocks": 3}, **FIVE)
add("wav-short-last-block-of-four", "wav", {"blocks": 3}, layers=8)  # K = 6, 6, then 4
add("wav-odd-sizes", "wav", {"blocks": 3}, **ODD)
add("wav-grouped-tied", "wav", {"blocks": 2}, **GROUPED, **TIED)
add("wav-evaluation", "wav", {"blocks": 2}, training=False)
add("wav-program-repeats", "wav", {"blocks": 2}, **program("0-1,2x2,3"))
add("wav-program-skips-a-block", "wav", {"blocks": 4}, **program("0,2-3"))
add("wav-program-without-the-first-layer", "wav", {"blocks": 2}, **program("1-3"))
add("wav-program-goes-back", "wav", {"blocks": 2}, **program("0-2,1,3,0"))
add("wav-program-finished-only", "wav", {"blocks": 2, "partial_details": False},
    **program("0x2,1-2,1,3"))

# The cases that are repeated with each mode of recomputation.
RECOMPUTED = ("prenorm-grouped-tied", "rezero", "layerscale", "block_layerscale-K3",
              "layerdrop-linear-rescale", "gated", "act", "act-shared",
              "denseformer-dilation-period", "mhc_lite", "full_attnres",
              "block_attnres-K3", "haares-K4", "wav-short-last-block", "wav-finished-only")
