"""Sorts many rows by integer keys, keeping the order of equal rows. NumPy's sort of 64-bit words does the work."""

import numpy as np


def stable_order(*keys: np.ndarray) -> np.ndarray:
    """The order int64[n] that sorts rows by the first key, then by the next; equal rows keep their order.

    Keys are integer or float arrays [n] without NaN. As many bits of the keys as fit beside a row's number make one
    word; words are sorted from the least significant bits to the most, as in a radix sort.
    """
    count = len(keys[0])
    place_bits = max(count - 1, 1).bit_length()
    place_mask = np.uint64((1 << place_bits) - 1)
    order: np.ndarray | None = None
    for key, bits in reversed(_packed([_unsigned(key) for key in keys])):
        for shift in range(0, bits, 64 - place_bits):
            words = key >> np.uint64(shift)
            if order is not None:
                words = words[order]
            words <<= np.uint64(place_bits)  # what is above the digit falls off the left end
            words |= np.arange(count, dtype=np.uint64)
            words.sort()
            words &= place_mask
            place = words.view(np.int64)
            order = place if order is None else order[place]
    return np.arange(count) if order is None else order


def _unsigned(key: np.ndarray) -> tuple[np.ndarray, int]:
    """The key as uint64 from 0 on in the same order, and how many bits it takes."""
    if not len(key):
        return key.astype(np.uint64), 0
    if key.dtype.kind == "f":  # the bits of a float, as an integer of its sign, have its order
        bits = (key.astype(np.float64) + 0.0).view(np.int64)  # + 0.0: there is one zero
        key = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)
    low, high = int(key.min()), int(key.max())
    unsigned = key.astype(np.int64).view(np.uint64) - np.uint64(low % 2**64)  # modulo 2^64, hence without overflow
    return unsigned, (high - low).bit_length()


def _packed(keys: list[tuple[np.ndarray, int]]) -> list[tuple[np.ndarray, int]]:
    """Neighbouring keys in one word where they fit."""
    out = [keys[0]]
    for key, bits in keys[1:]:
        before, before_bits = out[-1]
        if before_bits + bits <= 64 and bits < 64:
            out[-1] = (before << np.uint64(bits)) | key, before_bits + bits
        else:
            out.append((key, bits))
    return out
