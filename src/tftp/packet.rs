//! Octets to values and back (RFC 1350 §5, RFC 2347).
//!
//! OACK and ERROR are written by the codec of the `tftpd` crate. Its reader refuses a
//! request with an option that is malformed or repeated, which RFC 2347 wants
//! ignored, and an ERROR of an unknown code, which must end a transfer; so packets
//! are read here. DATA and ACK are read and written without allocation.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use tftpd::Packet as Codec;
pub use tftpd::{ErrorCode, OptionType, TransferOption};

/// The largest request in octets (RFC 2347: "a maximum of 512").
pub const REQUEST_MOST: usize = 512;

/// Octets of a DATA packet in front of its payload, and of a whole ACK.
pub const HEADER: usize = 4;

/// The longest ERROR text that is kept of what a peer says, in octets.
const MESSAGE_MOST: usize = 200;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RRQ: the peer reads.
    Get,
    /// WRQ: the peer writes.
    Put,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Get => "GET",
            Kind::Put => "PUT",
        })
    }
}

/// How the octets of a file travel (RFC 1350 §1). `mail` is obsolete, and
/// refused like any other word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// As text with CR LF line ends (RFC 764).
    Netascii,
}

/// A request that can be acted upon.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// Whether the peer reads or writes.
    pub kind: Kind,
    /// The name as it was sent; not checked in any way but for being UTF-8.
    pub name: String,
    /// Text or octets.
    pub mode: Mode,
    /// Known options with a numeric value, in the order in which they were
    /// asked for, each once. Ranges are for `options` to judge.
    pub options: Vec<TransferOption>,
}

/// Why a request is not acted upon: an ERROR packet in waiting.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The error code (RFC 1350 appendix I).
    pub code: ErrorCode,
    /// The text for the peer; it names no path of the host.
    pub text: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a fixed text.
    pub const fn new(code: ErrorCode, text: &'static str) -> Refusal {
        Refusal {
            code,
            text: Cow::Borrowed(text),
        }
    }

    /// The ERROR packet.
    pub fn to_packet(&self) -> Vec<u8> {
        error(self.code, &self.text)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.text, self.code as u16)
    }
}

/// A packet at first sight: what it is, with no claim that it makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ or WRQ, for [`Request::parse`].
    Request,
    /// DATA: block number and payload.
    Data(u16, &'a [u8]),
    /// ACK. Octets after the block number are ignored: old PXE ROMs pad.
    Ack(u16),
    /// ERROR: code and message, whatever they are.
    Error(u16, &'a [u8]),
    /// OACK: nothing that a server has a use for.
    Oack,
    /// An opcode that does not exist.
    Unknown(u16),
    /// Too short for what it claims to be.
    Runt,
}

impl Packet<'_> {
    /// Tells what `octets` are. Never fails: garbage is [`Packet::Unknown`] or
    /// [`Packet::Runt`].
    pub fn parse(octets: &[u8]) -> Packet<'_> {
        let Some((opcode, rest)) = octets.split_first_chunk() else {
            return Packet::Runt;
        };
        let opcode = u16::from_be_bytes(*opcode);
        match opcode {
            1 | 2 => Packet::Request,
            6 => Packet::Oack,
            3..=5 => match rest.split_first_chunk() {
                None => Packet::Runt,
                Some((number, rest)) => {
                    let number = u16::from_be_bytes(*number);
                    match opcode {
                        3 => Packet::Data(number, rest),
                        4 => Packet::Ack(number),
                        _ => Packet::Error(number, rest),
                    }
                }
            },
            _ => Packet::Unknown(opcode),
        }
    }
}

impl Request {
    /// Reads an RRQ or WRQ.
    ///
    /// Lenient where only one meaning is possible: the last NUL may be missing
    /// after the mode, and padding after it is ignored, as is half an option.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] to be sent: a request longer than [`REQUEST_MOST`], without
    /// name or mode, with an unknown mode (ERROR 4), or with a name that is
    /// empty or not UTF-8 (ERROR 2).
    pub fn parse(octets: &[u8]) -> Result<Request, Refusal> {
        const MALFORMED: Refusal = Refusal::new(ErrorCode::IllegalOperation, "malformed request");

        if octets.len() > REQUEST_MOST {
            return Err(Refusal::new(
                ErrorCode::IllegalOperation,
                "request longer than 512 octets",
            ));
        }
        let (kind, rest) = match octets {
            [0, 1, rest @ ..] => (Kind::Get, rest),
            [0, 2, rest @ ..] => (Kind::Put, rest),
            _ => return Err(MALFORMED),
        };
        let mut fields = Fields(rest);
        let name = fields.terminated().ok_or(MALFORMED)?;
        let mode = match fields.next().ok_or(MALFORMED)? {
            mode if mode.eq_ignore_ascii_case(b"octet") => Mode::Octet,
            mode if mode.eq_ignore_ascii_case(b"netascii") => Mode::Netascii,
            mode if mode.eq_ignore_ascii_case(b"mail") => {
                return Err(Refusal::new(
                    ErrorCode::IllegalOperation,
                    "mode mail is not supported",
                ));
            }
            _ => {
                return Err(Refusal::new(
                    ErrorCode::IllegalOperation,
                    "unknown transfer mode",
                ));
            }
        };
        if name.is_empty() {
            return Err(Refusal::new(ErrorCode::AccessViolation, "empty file name"));
        }
        let name = std::str::from_utf8(name)
            .map_err(|_| Refusal::new(ErrorCode::AccessViolation, "file name is not UTF-8"))?;
        Ok(Request {
            kind,
            name: name.to_owned(),
            mode,
            options: fields.options(),
        })
    }
}

/// The NUL-terminated fields of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field, if its NUL is there.
    fn terminated(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&octet| octet == 0)?;
        let field = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(field)
    }

    /// The next field, be it terminated or just the rest.
    fn next(&mut self) -> Option<&'a [u8]> {
        self.terminated().or_else(|| {
            let rest = std::mem::take(&mut self.0);
            (!rest.is_empty()).then_some(rest)
        })
    }

    /// The known options with a number, each once. The last value must be
    /// terminated: `blksize 14` may be a cut `1428`.
    fn options(&mut self) -> Vec<TransferOption> {
        let mut options: Vec<TransferOption> = Vec::new();
        while let (Some(name), Some(value)) = (self.terminated(), self.terminated()) {
            let text = |octets| std::str::from_utf8(octets).ok();
            let known =
                text(name).and_then(|name| OptionType::from_str(&name.to_ascii_lowercase()).ok());
            // The crate knows options that are in no RFC.
            let Some(
                option @ (OptionType::BlockSize
                | OptionType::TransferSize
                | OptionType::Timeout
                | OptionType::WindowSize),
            ) = known
            else {
                continue;
            };
            // `parse` takes "+512" for a number; the RFCs say ASCII digits.
            let digits = value.len() <= 20 && value.iter().all(u8::is_ascii_digit);
            let number = text(value)
                .filter(|_| digits)
                .and_then(|it| it.parse().ok());
            if let Some(value) = number
                && options.iter().all(|earlier| earlier.option != option)
            {
                options.push(TransferOption { option, value });
            }
        }
        options
    }
}

/// The four octets in front of the payload of block `number`. Numbers wrap from
/// 65535 to 0.
pub fn data_header(number: u64) -> [u8; HEADER] {
    let [high, low] = low_half(number).to_be_bytes();
    [0, 3, high, low]
}

/// An ACK of block `number`.
pub fn ack(number: u64) -> [u8; HEADER] {
    let [high, low] = low_half(number).to_be_bytes();
    [0, 4, high, low]
}

/// A block number as it is on the wire.
#[allow(clippy::cast_possible_truncation)] // What the protocol does.
pub fn low_half(number: u64) -> u16 {
    number as u16
}

/// An ERROR packet.
pub fn error(code: ErrorCode, text: &str) -> Vec<u8> {
    Codec::Error {
        code,
        msg: text.to_owned(),
    }
    .serialize()
    .unwrap_or_default()
}

/// An OACK packet.
pub fn oack(options: &[TransferOption]) -> Vec<u8> {
    Codec::Oack(options.to_vec())
        .serialize()
        .unwrap_or_default()
}

/// The text of a peer's ERROR, bounded, for a diagnostic. It may contain control
/// characters.
pub fn message(octets: &[u8]) -> String {
    let end = octets.iter().position(|&octet| octet == 0);
    let text = &octets[..end.unwrap_or(octets.len()).min(MESSAGE_MOST)];
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_by_opcode_and_length() {
        for (octets, packet) in [
            (&b""[..], Packet::Runt),
            (b"\0\x03\0", Packet::Runt),
            (b"\0\x01", Packet::Request),
            (b"\0\x03\x01\x02ab", Packet::Data(258, b"ab")),
            (b"\0\x04\xff\xffpad", Packet::Ack(65535)),
            (b"\0\x05\0\x63no", Packet::Error(99, b"no")),
            (b"\0\x06", Packet::Oack),
            (b"\x01\0", Packet::Unknown(256)),
        ] {
            assert_eq!(Packet::parse(octets), packet);
        }
    }

    #[test]
    fn block_numbers_wrap_to_zero() {
        assert_eq!(data_header(65_536), [0, 3, 0, 0]);
        assert_eq!(ack(65_537), [0, 4, 0, 1]);
    }

    #[test]
    fn a_request_keeps_what_is_meant_and_drops_the_rest() {
        let octets =
            b"\0\x02n\0NETascii\0x\x001\0BlkSize\x0008\0blksize\x009\0tsize\0-1\0timeout\x005";
        let request = Request::parse(octets).unwrap();
        assert_eq!((request.kind, request.mode), (Kind::Put, Mode::Netascii));
        let option = TransferOption {
            option: OptionType::BlockSize,
            value: 8,
        };
        assert_eq!(
            (request.name.as_str(), request.options),
            ("n", vec![option])
        );
    }

    #[test]
    fn what_a_peer_says_is_bounded() {
        assert_eq!(message(b"no\0more"), "no");
        assert_eq!(message(&[b'x'; 5000]).len(), MESSAGE_MOST);
        assert_eq!(message(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn a_refusal_is_an_error_packet() {
        let refusal = Refusal::new(ErrorCode::DiskFull, "disk full");
        assert_eq!(refusal.to_packet(), b"\0\x05\0\x03disk full\0");
        assert_eq!(refusal.to_string(), "disk full (error 3)");
        assert_eq!(
            (Kind::Get.to_string(), Kind::Put.to_string()),
            ("GET".into(), "PUT".into())
        );
    }
}
