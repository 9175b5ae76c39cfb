//! The priority of a controller, `[F]DCBA`, and what it allows its tasks.
//!
//! Each digit is a level from 0 to 9, D the most significant one. Levels are compared
//! as today's agents do: A orders the requests; B keeps lower controllers from being
//! asked while a task of a higher one is performed; C lets a task interrupt one task
//! of a lower level; D lets it interrupt all of them. F gives a task all hardware
//! threads of the host.

use std::fmt;

/// `[F]DCBA`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// A task gets all hardware threads.
    pub f: bool,
    /// A task may interrupt all tasks of a lower level.
    pub d: u8,
    /// A task may interrupt one task of a lower level.
    pub c: u8,
    /// While a task is performed, controllers of a lower level are not asked.
    pub b: u8,
    /// Orders the requests only.
    pub a: u8,
}

/// The tasks that a task may interrupt among those of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// None of them.
    Nothing,
    /// One.
    One,
    /// All of them.
    All,
}

impl Priority {
    /// Reads up to 5 decimal digits.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong.
    pub fn parse(digits: &str) -> Result<Priority, String> {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("priority {digits} is not a decimal number"));
        }
        if digits.len() > 5 {
            return Err(format!("priority {digits} has more than 5 digits"));
        }
        let mut levels = [0; 5];
        for (level, digit) in levels.iter_mut().rev().zip(digits.bytes().rev()) {
            *level = digit - b'0';
        }
        let [f, d, c, b, a] = levels;
        if f > 1 {
            return Err(format!("priority {digits} has a flag F that is not 0 or 1"));
        }
        Ok(Priority {
            f: f == 1,
            d,
            c,
            b,
            a,
        })
    }

    /// The rank among requests and among tasks: higher ones go first. F says how a task
    /// is built, and has no part in it.
    pub fn rank(self) -> u16 {
        [self.d, self.c, self.b, self.a]
            .iter()
            .fold(0, |rank, digit| rank * 10 + u16::from(*digit))
    }

    /// The tasks of priority `running` that a task of this priority may interrupt.
    pub fn interrupts(self, running: Priority) -> Interrupts {
        if self.d > running.d {
            Interrupts::All
        } else if self.d == running.d && self.c > running.c {
            Interrupts::One
        } else {
            Interrupts::Nothing
        }
    }

    /// Whether a controller of this priority is asked while a task of priority
    /// `running` is performed. One whose task could interrupt that task always is.
    /// Under a task of a higher D it is not, since that task interrupts those of this
    /// controller.
    pub fn is_asked_beside(self, running: Priority) -> bool {
        match self.interrupts(running) {
            Interrupts::One | Interrupts::All => true,
            Interrupts::Nothing => self.d == running.d && self.b >= running.b,
        }
    }
}

/// As on the command line.
impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = if self.f { "1" } else { "" };
        write!(f, "{flag}{:04}", self.rank())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str) -> Priority {
        Priority::parse(text).unwrap()
    }

    #[test]
    fn digits_are_levels_from_the_right() {
        for (text, shown) in [
            ("0", "0000"),
            ("5", "0005"),
            ("0101", "0101"),
            ("9876", "9876"),
            ("01000", "1000"),
            ("11000", "11000"),
            ("10001", "10001"),
        ] {
            assert_eq!(level(text).to_string(), shown, "{text}");
        }
        assert_eq!(level("11000").rank(), 1000);
        for (text, why) in [
            ("123456", "has more than 5 digits"),
            ("21000", "has a flag F that is not 0 or 1"),
            ("1x", "is not a decimal number"),
            ("", "is not a decimal number"),
        ] {
            let error = Priority::parse(text).unwrap_err();
            assert_eq!(error, format!("priority {text} {why}"));
        }
    }

    #[test]
    fn requests_are_ordered_by_the_whole_number() {
        let mut all = ["0100", "0009", "1000", "0000", "0010"].map(level);
        all.sort_unstable_by_key(|priority| priority.rank());
        let shown = all.map(|priority| priority.to_string());
        assert_eq!(shown, ["0000", "0009", "0010", "0100", "1000"]);
    }

    #[test]
    fn a_task_interrupts_those_of_lower_levels() {
        use Interrupts::{All, Nothing, One};
        for (new, running, expected) in [
            ("0009", "0000", Nothing),
            ("0090", "0000", Nothing),
            ("0100", "0000", One),
            ("0100", "0099", One),
            ("0100", "0100", Nothing),
            ("0100", "0200", Nothing),
            ("1000", "0000", All),
            ("1000", "0999", All),
            ("2000", "1999", All),
            // A higher C does not help against a higher D.
            ("0900", "1000", Nothing),
            ("1000", "1000", Nothing),
            ("1100", "1000", One),
            ("0000", "9999", Nothing),
        ] {
            assert_eq!(
                level(new).interrupts(level(running)),
                expected,
                "{new} {running}"
            );
        }
    }

    #[test]
    fn a_controller_of_a_lower_level_is_not_asked_beside_a_task() {
        for (controller, running, expected) in [
            ("0000", "0000", true),
            ("0000", "0009", true),
            ("0000", "0010", false),
            ("0010", "0010", true),
            ("0020", "0010", true),
            // Its task could interrupt the running one.
            ("0100", "0010", true),
            ("1000", "0010", true),
            ("1000", "0910", true),
            // C alone leaves the other instances to lower controllers.
            ("0000", "0100", true),
            ("0000", "0110", false),
            ("0010", "0110", true),
            // D interrupts all lower tasks, so none is begun.
            ("0990", "1000", false),
            ("1000", "1000", true),
        ] {
            let asked = level(controller).is_asked_beside(level(running));
            assert_eq!(asked, expected, "{controller} {running}");
        }
    }
}
