//! The checksum of LZ4 frames: XXH32 with seed 0 (`xxhash_spec.md` 0.1.1).

const PRIME: [u32; 5] = [
    0x9E37_79B1,
    0x85EB_CA77,
    0xC2B2_AE3D,
    0x27D4_EB2F,
    0x1656_67B1,
];

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b))
}

fn round(lane: u32, input: u32) -> u32 {
    let lane = lane.wrapping_add(input.wrapping_mul(PRIME[1]));
    lane.rotate_left(13).wrapping_mul(PRIME[0])
}

/// The XXH32 of `data`.
pub(super) fn xxh32(data: &[u8]) -> u32 {
    let mut lanes = [
        PRIME[0].wrapping_add(PRIME[1]),
        PRIME[1],
        0,
        0u32.wrapping_sub(PRIME[0]),
    ];
    let (stripes, rest) = data.as_chunks::<16>();
    for stripe in stripes {
        let (words, _) = stripe.as_chunks::<4>();
        for (lane, input) in lanes.iter_mut().zip(words) {
            *lane = round(*lane, u32::from_le_bytes(*input));
        }
    }
    let mut hash = if stripes.is_empty() {
        PRIME[4]
    } else {
        let turns = [1, 7, 12, 18];
        let turned = lanes.iter().zip(turns).map(|(l, n)| l.rotate_left(n));
        turned.fold(0, u32::wrapping_add)
    };
    // The length modulo 2^32, as the specification has it.
    hash = hash.wrapping_add(word(&data.len().to_le_bytes()[..4]));
    let (words, bytes) = rest.as_chunks::<4>();
    for input in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*input).wrapping_mul(PRIME[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIME[3]);
    }
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(PRIME[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIME[0]);
    }
    for (shift, prime) in [(15, PRIME[1]), (13, PRIME[2])] {
        hash = (hash ^ hash >> shift).wrapping_mul(prime);
    }
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sums() {
        for (data, sum) in [
            (&b""[..], 0x02CC_5D05),
            (b"a", 0x550D_7456),
            (b"abc", 0x32D1_53FF),
            (b"Nobody inspects the spammish repetition", 0xE229_3B2F),
        ] {
            assert_eq!(xxh32(data), sum);
        }
    }
}
