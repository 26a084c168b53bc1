"""Metrics as dcgm-exporter writes them, for a node of any number of cards."""

from collections.abc import Mapping


def metrics_text(
    *, host: str = "n1", cards: int = 2, pods: Mapping[int, tuple[str, str]] | None = None,
    xids: Mapping[int, int] | None = None, slices: Mapping[int, int] | None = None,
) -> str:  # fmt: skip
    """One page: `pods` by card hold it, `xids` are its last error, `slices` how many MIG parts."""
    values = {
        "DCGM_FI_DEV_GPU_UTIL": ("GPU utilization (in %).", 93),
        "DCGM_FI_DEV_FB_USED": ("Framebuffer memory used (in MiB).", 60_000),
        "DCGM_FI_DEV_FB_FREE": ("Framebuffer memory free (in MiB).", 21_000),
        "DCGM_FI_DEV_GPU_TEMP": ("GPU temperature (in C).", 61),
        "DCGM_FI_DEV_POWER_USAGE": ("Power draw (in W).", 412.5),
        "DCGM_FI_DEV_XID_ERRORS": ("Value of the last XID error encountered.", 0),
    }
    lines = []
    for name, (words, value) in values.items():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
        for card in range(cards):
            said = (xids or {}).get(card, 0) if name == "DCGM_FI_DEV_XID_ERRORS" else value
            for part in range((slices or {}).get(card, 0)) or (None,):
                labels = _labels(host, card, part, (pods or {}).get(card, ("", "")))
                lines.append(f"{name}{{{labels}}} {said}")
    return "\n".join([*lines, 'go_goroutines{version="1"} 12', ""])


def _labels(host: str, card: int, part: int | None, pod: tuple[str, str]) -> str:
    labels = {
        "gpu": str(card),
        "UUID": f"GPU-{card:08d}-0000-4000-8000-000000000000",
        "pci_bus_id": f"00000000:{card:02X}:00.0",
        "device": f"nvidia{card}",
        "modelName": "NVIDIA H100 80GB HBM3",
        "Hostname": host,
        "DCGM_FI_DRIVER_VERSION": "550.54.15",
    }
    if part is not None:
        labels |= {"GPU_I_PROFILE": "1g.10gb", "GPU_I_ID": str(part + 7)}
    if pod[1]:
        labels |= {"container": "main", "namespace": pod[0], "pod": pod[1]}
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
