//! The netascii mode (RFC 1350 §1, RFC 764): LF is CR LF on the wire, CR is CR
//! NUL. Pure; a pair may be split by the end of a block.

/// File octets to wire octets, resumable at any point: a copy of the state is a
/// place to go back to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    /// The second half of a pair that did not fit.
    pending: Option<u8>,
}

impl Encoder {
    /// Converts from `file` into `wire` until either is exhausted. Returns how
    /// many octets were taken and how many were made.
    pub fn encode(&mut self, file: &[u8], wire: &mut [u8]) -> (usize, usize) {
        let (mut taken, mut made) = (0, 0);
        while let Some(place) = wire.get_mut(made) {
            if let Some(second) = self.pending.take() {
                *place = second;
            } else {
                let Some(&octet) = file.get(taken) else {
                    break;
                };
                taken += 1;
                (*place, self.pending) = match octet {
                    b'\n' => (b'\r', Some(b'\n')),
                    b'\r' => (b'\r', Some(0)),
                    other => (other, None),
                };
            }
            made += 1;
        }
        (taken, made)
    }

    /// Whether half a pair is still to be sent.
    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }
}

/// Wire octets to file octets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    /// A CR came last; what it means depends on the next octet.
    return_seen: bool,
}

impl Decoder {
    /// Converts all of `wire`, appending to `file`. A CR that is followed by
    /// neither LF nor NUL is none of netascii's, and kept as it is.
    pub fn decode(&mut self, wire: &[u8], file: &mut Vec<u8>) {
        for &octet in wire {
            if std::mem::take(&mut self.return_seen) {
                match octet {
                    b'\n' => file.push(b'\n'),
                    0 => file.push(b'\r'),
                    b'\r' => {
                        file.push(b'\r');
                        self.return_seen = true;
                    }
                    other => file.extend([b'\r', other]),
                }
            } else if octet == b'\r' {
                self.return_seen = true;
            } else {
                file.push(octet);
            }
        }
    }

    /// Writes the rest at the end of the file: a CR that nothing followed.
    pub fn finish(&mut self, file: &mut Vec<u8>) {
        if std::mem::take(&mut self.return_seen) {
            file.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(file: &[u8], pieces: usize) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let (mut wire, mut rest) = (Vec::new(), file);
        loop {
            let mut piece = vec![0; pieces];
            let (taken, made) = encoder.encode(rest, &mut piece);
            wire.extend_from_slice(&piece[..made]);
            rest = &rest[taken..];
            if rest.is_empty() && !encoder.is_pending() {
                return wire;
            }
        }
    }

    #[test]
    fn line_ends_and_returns_become_pairs_wherever_they_are_cut() {
        for pieces in 1..9 {
            assert_eq!(encoded(b"a\nb\rc\r\n", pieces), b"a\r\nb\r\0c\r\0\r\n");
        }
    }

    #[test]
    fn pairs_become_what_they_were_wherever_they_are_cut() {
        let wire = b"a\r\nb\r\0c\r\0\r\n";
        for cut in 0..=wire.len() {
            let (mut decoder, mut file) = (Decoder::default(), Vec::new());
            decoder.decode(&wire[..cut], &mut file);
            decoder.decode(&wire[cut..], &mut file);
            decoder.finish(&mut file);
            assert_eq!(file, b"a\nb\rc\r\n");
        }
    }

    #[test]
    fn a_return_that_is_none_of_netascii_is_kept() {
        let (mut decoder, mut file) = (Decoder::default(), Vec::new());
        decoder.decode(b"a\rb\r\r\n\r", &mut file);
        decoder.finish(&mut file);
        assert_eq!(file, b"a\rb\r\n\r");
    }
}
