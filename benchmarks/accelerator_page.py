"""The tables of `benchmarks.accelerator` in Markdown. Needs nothing but Python."""

from typing import Any

GIB = 2**30


def page(found: dict[str, Any]) -> str:
    """What was found, as a page; parts that are missing or failed are named at its end."""
    parts = found["parts"]
    # Of a part that took too long, the rows that it had.
    good = {name: part for name, part in parts.items() if "error" not in part or "rows" in part}
    lines = [_title(good.get("machine", {}), found), ""]
    for make in (_checks, _ceilings, _rl, _sft, _decode, _peers):
        table = make(good)
        lines += [*table, ""] if table else []
    failed = [f"- {name}: {part['error']}" for name, part in parts.items() if "error" in part]
    return "\n".join(lines + (["What did not end:", "", *failed, ""] if failed else [])).rstrip() + "\n"


def _title(machine: dict[str, Any], found: dict[str, Any]) -> str:
    device = machine.get("device", "a machine that did not say what it is")
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return f"# On {device}{' (tiny shapes: no timing means anything)' if found['tiny'] else ''}\n\nWith {versions}."


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    if not rows:
        return []
    cells = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(str(cell) for cell in row) + " |" for row in cells]


def _checks(parts: dict[str, Any]) -> list[str]:
    names = {
        "models": "logits against PyTorch's on a CPU",
        "attention": "the vendor's attention against XLA's",
        "steps": "an RL step against the CPU's",
    }
    rows = []
    for name, text in names.items():
        if name in parts:
            part = parts[name]
            worst = part.get("relative_difference") or {key: one["difference"] for key, one in part["logits"].items()}
            key = max(worst, key=worst.__getitem__)
            rows.append((text, "right" if part["ok"] else "WRONG", f"{worst[key]:.1e} ({key})"))
    return _table(("check", "result", "largest difference"), rows)


def _ceilings(parts: dict[str, Any]) -> list[str]:
    if "ceilings" not in parts:
        return []
    part = parts["ceilings"]
    rows = [
        (f"products in {dtype}", f"{rate / 1e12:.2f} TFLOP/s") for dtype, rate in part["matmul_flops_per_s"].items()
    ]
    return _table(("ceiling", "measured"), [*rows, ("memory", f"{part['copy_bytes_per_s'] / 1e9:.1f} GB/s")])


def _rl(parts: dict[str, Any]) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for name, part in parts.items():
        for row in part.get("rows", []) if name.startswith("rl_") else []:
            start = (name.removeprefix("rl_"), row["users"], row["group"])
            if row.get("does_not_fit"):
                rows.append((*start, "does not fit", "", "", "", ""))
                continue
            held = f"{row['program_bytes'] / GIB:.2f}" if row["program_bytes"] else ""
            rates = (f"{1e3 * row['step_s']:.1f}", f"{row['users_per_s']:.1f}", f"{row['share']:.2f}")
            rows.append((*start, *rates, held, f"{row['compile_s']:.0f}"))
    return _table(("RL step", "B", "G", "ms", "users/s", "share of peak", "GiB", "compiled in s"), rows)


def _sft(parts: dict[str, Any]) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for name, part in parts.items():
        if not name.startswith("sft_"):
            continue
        start = (name.removeprefix("sft_"), part["batch_tokens"])
        if part.get("does_not_fit"):
            rows.append((*start, "does not fit", "", ""))
        else:
            rates = (f"{part['tokens_per_s']:,.0f}", f"{part['targets_per_s']:,.0f}")
            rows.append((*start, *rates, f"{part['peak_memory_bytes'] / GIB:.2f}"))
    return _table(("SFT step", "tokens", "tokens/s", "targets/s", "peak GiB"), rows)


def _decode(parts: dict[str, Any]) -> list[str]:
    rows = [(f"{row['items']:,}", f"{row['ms']:.2f}") for row in parts.get("decode", {}).get("rows", [])]
    return _table(("items", "ms a search"), rows)


def _peers(parts: dict[str, Any]) -> list[str]:
    rows: list[tuple[Any, ...]] = []
    for name, part in parts.items():
        if name.startswith("peer_"):
            low, high = part["ratio_spread"]
            times = (f"{1e3 * part['step_s']:.1f}", f"{1e3 * part['peer_step_s']:.1f}")
            start = (name.removeprefix("peer_"), part["users"])
            rows.append((*start, *times, f"{part['ratio']:.1f} ({low:.1f} to {high:.1f})"))
    return _table(("against Hugging Face", "B", "ms", "its ms", "ratio (spread)"), rows)
