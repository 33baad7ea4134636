"""Internet checksums (RFC 1071) of many packets at once.

What they decide follows Zeek 8 without `-C`:
https://docs.zeek.org/en/v8.0.8/scripts/base/init-bare.zeek.html (ignore_checksums). The sum of
16-bit words is taken modulo 65,535, where one's complement sums agree.
"""

from __future__ import annotations

import numpy as np

from ids_plugin.flowmeter.packets.headers import Bools, Bytes, Int64s, UInt64s

MODULUS = 65_535


def checksum_sums(data: Bytes, offsets: Int64s, length: Int64s) -> Int64s:
    """Sums of the big-endian words of n stretches of bytes, modulo MODULUS; an odd byte at the
    end counts as high.
    """
    if not len(offsets):
        return np.zeros(0, dtype=np.int64)
    first_byte = int(offsets.min()) & ~1
    words = np.append(
        data[first_byte : (int((offsets + length).max()) + 1) & ~1].view(">u2"), np.uint16(0)
    )
    start, end = offsets - first_byte, offsets - first_byte + length
    word_begin, word_end = (start + 1) // 2, np.maximum(end // 2, (start + 1) // 2)
    order = np.argsort(word_begin, kind="stable")
    bounds = np.stack([word_begin[order], word_end[order]], axis=1).ravel()
    total = np.empty(len(offsets), dtype=np.int64)
    total[order] = np.add.reduceat(words, np.minimum(bounds, len(words) - 1), dtype=np.int64)[::2]
    total = np.where(word_end > word_begin, total, 0)
    odd_start, odd_end = (start & 1 == 1) & (length > 0), (end & 1 == 1) & (length > 0)
    total += np.where(odd_start, data[offsets], 0)
    total += np.where(odd_end, data[np.maximum(offsets + length - 1, 0)].astype(np.int64) << 8, 0)
    result: Int64s = np.where(start & 1 == 1, total % MODULUS * 256, total) % MODULUS
    return result


def pseudo_sums(
    source: tuple[UInt64s, UInt64s],
    target: tuple[UInt64s, UInt64s],
    protocol: Int64s,
    length: Int64s,
) -> Int64s:
    """Sums of pseudo headers; of an IPv4 address kept as IPv6 the mapping's words count nothing
    modulo MODULUS.
    """
    total: Int64s = protocol + (length >> 16) + (length & 0xFFFF)
    for half in (*source, *target):
        for shift in (0, 16, 32, 48):
            total = total + (half >> np.uint64(shift) & np.uint64(0xFFFF)).astype(np.int64)
    return total


def wrong_checksums(
    data: Bytes, offsets: Int64s, length: Int64s, pseudo_header_sums: Int64s
) -> Bools:
    """Whether the checksum among n stretches of bytes doesn't fit; `pseudo_header_sums` are the
    sums of their pseudo headers.
    """
    is_wrong: Bools = (checksum_sums(data, offsets, length) + pseudo_header_sums) % MODULUS != 0
    return is_wrong
