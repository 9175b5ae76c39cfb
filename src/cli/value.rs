//! The values of options: text in, typed value or what was expected out.
//!
//! Only the form is judged. Whether a directory exists or a bridge is up is
//! found out by the one who uses it.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::options::Space;
use crate::manifest::value::StandardVersion;
use crate::settings::{FIRST_VNC_PORT, Hold, LoginTemplate};

/// The expected value, to complete `invalid value 'x' of option '--y': expected ...`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected(pub(super) String);

impl From<&str> for Expected {
    fn from(what: &str) -> Expected {
        Expected(what.to_owned())
    }
}

pub(super) type Result<T> = std::result::Result<T, Expected>;

/// The value of one occurrence of an option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    /// As it was written; `None` for a switch without one.
    pub(super) raw: Option<&'a OsStr>,
    /// Whether this is the first occurrence in its source. A list in a source
    /// that wins replaces the list of one that loses.
    pub(super) first: bool,
}

/// Longest time that can be asked for. It keeps sums of instants in range.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl<'a> Value<'a> {
    fn bytes(self) -> &'a OsStr {
        self.raw.unwrap_or_default()
    }

    fn str(self, expected: &str) -> Result<&'a str> {
        self.bytes().to_str().ok_or_else(|| expected.into())
    }

    /// Text of one line.
    pub(super) fn text(self) -> Result<String> {
        let expected = "text in UTF-8, without control characters";
        let text = self.str(expected)?;
        if text.chars().any(char::is_control) {
            return Err(expected.into());
        }
        Ok(text.to_owned())
    }

    /// Text of one line that is not empty.
    pub(super) fn word(self) -> Result<String> {
        match self.text()? {
            text if text.is_empty() => Err("text that is not empty".into()),
            text => Ok(text),
        }
    }

    /// A pattern of names; any name when there is none.
    pub(super) fn pattern(self) -> Result<String> {
        match self.raw {
            None => Ok("*".to_owned()),
            Some(_) => self.word(),
        }
    }

    /// A switch: on when it stands alone, else what it says.
    pub(super) fn switch(self) -> Result<bool> {
        match self.raw.map(OsStr::to_str) {
            None | Some(Some("yes" | "true")) => Ok(true),
            Some(Some("no" | "false")) => Ok(false),
            Some(_) => Err("nothing, or yes or no".into()),
        }
    }

    /// Whether it is an empty text.
    pub(super) fn is_empty(self) -> bool {
        self.bytes().is_empty()
    }

    /// A path of any kind.
    pub(super) fn path(self, what: &str) -> Result<PathBuf> {
        let raw = self.bytes();
        if raw.is_empty() || raw.as_encoded_bytes().contains(&0) {
            return Err(Expected(format!("path of a {what}")));
        }
        Ok(PathBuf::from(raw))
    }

    /// A text for users, with substitutions.
    pub(super) fn login(self) -> Result<LoginTemplate> {
        let text = self.word()?;
        let expected = || "a text in which %h, %i, %p, %s or %% follow a percent sign".into();
        LoginTemplate::parse(&text).ok_or_else(expected)
    }

    /// The address of a display: `<ip>` or `<ip>:<port>`.
    pub(super) fn display(self) -> Result<SocketAddr> {
        let expected = "an IP address of this host, with or without a port from 5900 to 65000, \
                        as 10.0.0.1 or [fd00::1]:5900";
        let text = self.str(expected)?;
        let alone = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let text = alone.unwrap_or(text);
        let address = match text.parse() {
            Ok(address) => address,
            Err(_) => SocketAddr::new(text.parse().map_err(|_| expected)?, FIRST_VNC_PORT),
        };
        match address.port() {
            // The last instance has a port, too.
            FIRST_VNC_PORT..=65_000 => Ok(address),
            _ => Err(expected.into()),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T: TryFrom<u64>>(self, least: u64, most: u64) -> Result<T> {
        let expected = || Expected(format!("a number from {least} to {most}"));
        digits(self.str("")?)
            .filter(|n| (least..=most).contains(n))
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(expected)
    }

    /// A time of at least `least` seconds: `90`, `90s`, `15m`, `3h`, `7d`.
    pub(super) fn time(self, least: u64) -> Result<Duration> {
        let expected = || {
            Expected(format!(
                "a time of at least {least} seconds, as 90, 90s, 15m, 3h or 7d"
            ))
        };
        let (number, unit) = split(self.str("").map_err(|_| expected())?);
        let factor = match unit {
            "" | "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(expected()),
        };
        digits(number)
            .and_then(|n| n.checked_mul(factor))
            .filter(|n| *n >= least && *n <= LONGEST.as_secs())
            .map(Duration::from_secs)
            .ok_or_else(expected)
    }

    /// A time, or `forever`.
    pub(super) fn hold(self) -> Result<Hold> {
        if self.bytes() == "forever" {
            return Ok(Hold::Forever);
        }
        self.time(0)
            .map(Hold::For)
            .map_err(|_| "a time, as 0, 90, 15m or 3h, or 'forever'".into())
    }

    /// A size, in units of `unit` bytes when it has no letter: `512`, `64K`,
    /// `14M`, `10G`, `1T`. The result is in bytes.
    pub(super) fn size(self, unit: u64, least: u64) -> Result<u64> {
        let plain = if unit == 1024 { " kB" } else { "" };
        let expected = || {
            let examples = "as 1048576, 512K, 14M or 10G";
            Expected(format!("a size from {least}{plain}, {examples}"))
        };
        size(self.str("").map_err(|_| expected())?, unit)
            .filter(|bytes| *bytes / unit >= least)
            .ok_or_else(expected)
    }

    /// A size in bytes; `usual` when there is none.
    pub(super) fn size_or(self, usual: u64) -> Result<u64> {
        self.raw.map_or(Ok(usual), |_| self.size(1, 1))
    }

    /// A share, a size, or both: `5%`, `10G`, `5%,10G`.
    pub(super) fn space(self) -> Result<Space> {
        let expected = || Expected::from("a share or a size or both, as 5%, 10G or 5%,10G");
        let mut space = Space::default();
        for part in self.str("").map_err(|_| expected())?.split(',') {
            match part.strip_suffix('%') {
                Some(share) if space.percent.is_none() => {
                    let share = digits(share).and_then(|n| u8::try_from(n).ok());
                    space.percent = Some(share.filter(|n| *n < 100).ok_or_else(expected)?);
                }
                None if space.bytes.is_none() => {
                    space.bytes = Some(size(part, 1).ok_or_else(expected)?);
                }
                _ => return Err(expected()),
            }
        }
        Ok(space)
    }

    /// One of some words.
    pub(super) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Result<T> {
        let found = words.iter().find(|(word, _)| self.bytes() == *word);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let mut expected = String::new();
            for (i, (word, _)) in words.iter().enumerate() {
                let joint = match i {
                    0 => "",
                    _ if i + 1 == words.len() => " or ",
                    _ => ", ",
                };
                expected.push_str(joint);
                expected.push_str(word);
            }
            Expected(expected)
        })
    }

    /// Text that is of a form.
    fn of_form(self, expected: &str, is_good: impl Fn(&str) -> bool) -> Result<String> {
        let text = self.str(expected)?;
        match is_good(text) {
            true => Ok(text.to_owned()),
            false => Err(expected.into()),
        }
    }

    /// A name that becomes a part of file names: letters, digits and `_.+-`,
    /// the first a letter.
    pub(super) fn name(self) -> Result<String> {
        let expected = "a name of letters, digits and _.+-, beginning with a letter";
        self.of_form(expected, |text| is_name(text) && text.len() <= 64)
    }

    /// Name of a network interface; longer ones are cut short by the kernel
    /// (`IFNAMSIZ`, netdevice(7)).
    pub(super) fn interface(self) -> Result<String> {
        self.of_form("an interface name of at most 15 characters", |text| {
            let is_good = |c: u8| c.is_ascii_graphic() && !b"/:".contains(&c);
            (1..=15).contains(&text.len())
                && !matches!(text, "." | "..")
                && text.bytes().all(is_good)
        })
    }

    /// Fingerprint of a repository certificate: 32 octets in hex with colons.
    pub(super) fn fingerprint(self) -> Result<String> {
        let expected = "32 pairs of hexadecimal digits separated by colons";
        let is_pair = |pair: &str| pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit());
        self.of_form(expected, |text| {
            text.split(':').count() == 32 && text.split(':').all(is_pair)
        })
    }

    /// A version in build2's own format.
    pub(super) fn standard_version(self) -> Result<String> {
        self.of_form("a standard version, as 0.17.0", |text| {
            StandardVersion::parse(text).is_ok()
        })
    }

    /// `<package>=<version>`.
    pub(super) fn package_version(self) -> Result<(String, String)> {
        let expected = "<package>=<version>";
        let text = self.word().map_err(|_| Expected::from(expected))?;
        match text.split_once('=') {
            Some((package, version))
                if !version.is_empty()
                    && !version.contains(char::is_whitespace)
                    && is_name(package) =>
            {
                Ok((package.to_owned(), version.to_owned()))
            }
            _ => Err(expected.into()),
        }
    }

    /// Adds to a list, replacing what a losing source put there.
    pub(super) fn push<T>(self, list: &mut Vec<T>, item: Result<T>) -> Result<()> {
        let item = item?;
        if self.first {
            list.clear();
        }
        list.push(item);
        Ok(())
    }
}

/// Whether a text has letters, digits and `_.+-`, the first a letter.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"_.+-".contains(&c))
}

/// Digits and nothing else: no sign, no blank.
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|c| c.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// A number and the letters behind it.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn size(text: &str, unit: u64) -> Option<u64> {
    let (number, letter) = split(text);
    let factor = match letter {
        "" => unit,
        "K" | "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    digits(number)?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value<'_> {
        Value {
            raw: Some(OsStr::new(text)),
            first: true,
        }
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("3h", 10800)] {
            assert_eq!(value(text).time(1), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "0",
            "-1",
            "1.5",
            "1w",
            "s",
            "367d",
            "99999999999999999999",
            " 1",
        ] {
            assert!(value(text).time(1).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_have_letters_and_do_not_overflow() {
        assert_eq!(value("14M").size(1, 0), Ok(14 << 20));
        assert_eq!(value("4194304").size(1024, 1), Ok(4 << 30));
        assert_eq!(value("4G").size(1024, 1), Ok(4 << 30));
        for text in ["", "M", "1X", "0", "18446744073709551615K"] {
            assert!(value(text).size(1024, 1).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_smaller_of_share_and_size_counts() {
        let space = value("5%,10G").space().unwrap();
        assert_eq!(space.of(100 << 30), 5 << 30);
        assert_eq!(space.of(1 << 40), 10 << 30);
        assert_eq!(value("0").space().unwrap().of(1 << 40), 0);
        assert_eq!(value("7%").space().unwrap().of(100), 7);
        for text in ["", "%", "100%", "5%,6%", "1G,2G", "5%,"] {
            assert!(value(text).space().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_toolchain_name_cannot_be_the_number_of_a_protocol() {
        assert!(value("default").name().is_ok());
        assert!(value("1").name().is_err());
        assert!(value("a/b").name().is_err());
        assert!(value("").name().is_err());
    }

    #[test]
    fn an_interface_name_is_never_cut_short() {
        assert!(value("br1").interface().is_ok());
        assert!(value("sixteen-letters-").interface().is_err());
    }

    #[test]
    fn a_bad_word_is_told_the_good_ones() {
        let words = [("a", 1), ("b", 2), ("c", 3)];
        assert_eq!(value("b").one_of(&words), Ok(2));
        assert_eq!(value("x").one_of(&words), Err("a, b or c".into()));
    }
}
