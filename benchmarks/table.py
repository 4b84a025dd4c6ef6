"""The table of benchmark results, made from the stored numbers."""

from typing import Any

from benchmarks import boosting, loop, representation, usual_way


def render(results: dict[str, Any]) -> str:
    """Write the results as a Markdown table."""
    machine = results["machine"]
    lines = [
        "| what | measured | bound |",
        "| --- | --- | --- |",
    ]
    lines += loop.rows(results["loop"])
    for r in results.get("randomness", []):
        lines.append(
            f"| `snr` / bare network calls, `{r['defense']}` t={r['t']}, {r['purifications']:,} "
            f"purifications | {r['ratio']:.3f}{_spread(r)}, peak "
            f"{r['peak_mib']:.0f} MiB | 1.10, 1 GiB |"
        )
    lines += usual_way.rows(results["usual_way"])
    lines += boosting.rows(results.get("boosting", []))
    lines += representation.rows(results.get("representation", []))
    lines += _certification(results.get("certification", {}))
    rows = results["memory"]
    increases = [row["checkpoint_increase_mib"] for row in rows]
    peaks = [row["checkpoint_peak_mib"] for row in rows]
    lengths = ", ".join(str(row["t"]) for row in rows)
    listed = ", ".join(f"{value:.0f}" for value in peaks)
    lines.append(
        f"| peak memory of exact gradients at t = {lengths}, tile 64 | {listed} MiB, "
        f"{max(peaks) / min(peaks):.2f}x | 1.3x |"
    )
    grown = ", ".join(f"{value:.0f}" for value in increases)
    full = ", ".join(
        f"{row['full_increase_mib']:.0f}" for row in rows if "full_increase_mib" in row
    )
    lines.append(
        f"| the same above the program's own memory (full autograd at the first two) | {grown} MiB "
        f"({full} MiB) | |"
    )
    lines += [
        f"| `advpure {row['line']}`, processor time of the command | {row['seconds']:.2f} s | "
        f"{row['bound']:g} s |"
        for row in results.get("commands", [])
    ]
    lines.append(
        f"\nMedian, least and most of repeated pairs; processor time of {machine['threads']} "
        f"thread except where threads are named, which is wall time. {machine['cores']} cores "
        f"({machine['processor']}), torch "
        f"{machine['torch']}."
    )
    return "\n".join(lines)


def _spread(row: dict[str, Any]) -> str:
    """Write the least and the most of several pairs."""
    low, high = row["low"], row["high"]
    return f" ({low:.3f} to {high:.3f})" if low < high else ""


def _certification(found: dict[str, Any]) -> list[str]:
    """Write the rows of certification, as far as they are measured."""
    lines = [
        f"| certification / bare network calls, `{row['defense']}` on {row['dataset']}, throughput "
        f"| {row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f}) | 0.95 |"
        for row in found.get("throughput", [])
    ]
    lines += [
        f"| certification, the published script's loop with batches of {row['batch']} / ours, "
        f"`{row['defense']}` on {row['dataset']} | {row['times_faster']:.2f}x faster "
        f"({row['low']:.2f} to {row['high']:.2f}) | 1x |"
        for row in found.get("published_loop", [])
    ]
    return lines
