//! Option negotiation (RFC 2347, 2348, 2349, 7440). Pure.
//!
//! The answer never raises a value and never has an option that was not asked
//! for; a value out of its RFC's range is ignored as if it had not been sent.

use std::time::Duration;

use super::packet::{self, Kind, Mode, OptionType, Request, TransferOption};

/// The block size without the option (RFC 1350).
pub const BLKSIZE_DEFAULT: u16 = 512;
/// The smallest and the largest block size (RFC 2348).
pub const BLKSIZE_RANGE: std::ops::RangeInclusive<u64> = 8..=65464;
/// Timeouts in seconds (RFC 2349).
pub const TIMEOUT_RANGE: std::ops::RangeInclusive<u64> = 1..=255;
/// Window sizes in blocks (RFC 7440).
pub const WINDOW_RANGE: std::ops::RangeInclusive<u64> = 1..=65535;
/// The largest window that is granted, in blocks. One GSO send takes as many.
pub const WINDOW_MOST: u16 = 64;

/// The approximate overhead of a datagram in a receive buffer (`sizeof(struct
/// sk_buff)`, `skb_shared_info`, rounding), in bytes.
const DATAGRAM_OVERHEAD: u64 = 800;

/// The terms of a transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// Octets of every block but the last.
    pub blksize: u16,
    /// Blocks sent before an ACK is due.
    pub window: u16,
    /// The retransmission interval, if one was negotiated; it is then kept to.
    pub timeout: Option<Duration>,
    /// The size that the peer announced for its upload, if it did: 0 is what
    /// curl says when it does not know.
    pub announced: Option<u64>,
    /// The options of the OACK in the order of the request; empty means no OACK.
    pub answer: Vec<TransferOption>,
}

impl Terms {
    /// Agrees with a request as far as possible.
    ///
    /// `size` is that of the file to be read, where it is known in octets on the
    /// wire. `receive_buffer` is that of the socket in octets: a window of an
    /// upload that does not fit would be lost at the same place every time.
    pub fn agree(request: &Request, size: Option<u64>, receive_buffer: u64) -> Terms {
        let mut terms = Terms {
            blksize: BLKSIZE_DEFAULT,
            window: 1,
            timeout: None,
            announced: None,
            answer: Vec::with_capacity(request.options.len()),
        };
        let mut window_at = None;
        for &TransferOption { option, value } in &request.options {
            let granted = match option {
                OptionType::BlockSize if BLKSIZE_RANGE.contains(&value) => {
                    terms.blksize = u16::try_from(value).unwrap_or(BLKSIZE_DEFAULT);
                    value
                }
                OptionType::Timeout if TIMEOUT_RANGE.contains(&value) => {
                    terms.timeout = Some(Duration::from_secs(value));
                    value
                }
                OptionType::WindowSize if WINDOW_RANGE.contains(&value) => {
                    window_at = Some(terms.answer.len());
                    value
                }
                OptionType::TransferSize => match (request.kind, request.mode) {
                    (Kind::Get, Mode::Octet) => match size {
                        Some(0) if is_curl(request) => continue,
                        Some(size) => size,
                        None => continue,
                    },
                    // The size of a text on the wire is not known beforehand.
                    (Kind::Get, Mode::Netascii) => continue,
                    (Kind::Put, Mode::Octet) => {
                        terms.announced = Some(value).filter(|&size| size > 0);
                        value
                    }
                    // What was meant by it, the text here or as it is on the wire,
                    // is not said: nothing is refused for it.
                    (Kind::Put, Mode::Netascii) => value,
                },
                _ => continue,
            };
            terms.answer.push(TransferOption {
                option,
                value: granted,
            });
        }
        // After the loop, for the block size may come after the window size.
        if let Some(answer) = window_at.and_then(|at| terms.answer.get_mut(at)) {
            let mut most = u64::from(WINDOW_MOST);
            if request.kind == Kind::Put {
                let block = u64::from(terms.blksize) + DATAGRAM_OVERHEAD;
                most = most.min(receive_buffer / block).max(1);
            }
            answer.value = answer.value.min(most);
            terms.window = u16::try_from(answer.value).unwrap_or(1);
        }
        terms
    }

    /// The OACK packet, if there is anything to acknowledge.
    pub fn oack(&self) -> Option<Vec<u8>> {
        (!self.answer.is_empty()).then(|| packet::oack(&self.answer))
    }
}

/// Whether the options are those that curl always sends, in its order. It takes
/// "tsize 0" in an OACK for an error ("invalid tsize"), and so could not get an
/// empty file. Leaving an option out is always allowed (RFC 2347).
fn is_curl(request: &Request) -> bool {
    let asked = request.options.iter().map(|option| option.option);
    asked.eq([
        OptionType::TransferSize,
        OptionType::BlockSize,
        OptionType::Timeout,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &[u8]) -> Request {
        Request::parse(text).unwrap()
    }

    #[test]
    fn a_window_of_an_upload_fits_into_the_receive_buffer() {
        let asked = b"\0\x02f\0octet\0windowsize\x0064\0blksize\x008192\0";
        assert_eq!(Terms::agree(&request(asked), None, 200_000).window, 22);
        assert_eq!(Terms::agree(&request(asked), None, 1).window, 1);
        assert_eq!(Terms::agree(&request(asked), None, 8 << 20).window, 64);
        let mut read = asked.to_vec();
        read[1] = 1;
        assert_eq!(Terms::agree(&request(&read), Some(1), 1).window, 64);
    }

    #[test]
    fn a_size_beyond_four_gigabytes_is_told() {
        let asked = request(b"\0\x01f\0octet\0tsize\x000\0");
        let terms = Terms::agree(&asked, Some(5 << 30), 1 << 20);
        assert_eq!(terms.oack().unwrap(), b"\0\x06tsize\x005368709120\0");
    }

    #[test]
    fn an_announced_size_of_zero_is_none() {
        let asked = request(b"\0\x02f\0octet\0tsize\x000\0");
        let terms = Terms::agree(&asked, None, 1 << 20);
        assert_eq!((terms.announced, terms.answer.len()), (None, 1));
        let asked = request(b"\0\x02f\0octet\0tsize\x007\0");
        assert_eq!(Terms::agree(&asked, None, 1 << 20).announced, Some(7));
    }

    #[test]
    fn the_size_of_a_text_is_echoed_to_its_writer_and_not_counted_on() {
        let asked = request(b"\0\x02f\0netascii\0tsize\x007\0");
        let terms = Terms::agree(&asked, None, 1 << 20);
        assert_eq!(terms.announced, None);
        assert_eq!(terms.oack().unwrap(), b"\0\x06tsize\x007\0");
        let asked = request(b"\0\x01f\0netascii\0tsize\x000\0");
        assert_eq!(Terms::agree(&asked, Some(7), 1 << 20).oack(), None);
    }

    #[test]
    fn nothing_acceptable_is_no_oack() {
        let asked = request(b"\0\x01f\0octet\0blksize\x001\0");
        assert_eq!(Terms::agree(&asked, Some(1), 1 << 20).oack(), None);
    }
}
