//! The option that an unknown one resembles.

use super::flags;

/// The name of the option that differs from `name` in one or two edits.
pub(super) fn option_like(name: &str) -> Option<&'static str> {
    let names = flags::all()
        .flat_map(|flag| std::iter::once(flag.name).chain(flag.aliases.iter().copied()));
    let (edits, nearest) = names.map(|known| (distance(name, known), known)).min()?;
    (edits <= 2 && edits * 2 < nearest.len()).then_some(nearest)
}

/// The number of edits that turn one name into the other, where two letters that
/// are swapped count as one (optimal string alignment). `a` comes from outside, so
/// it is cut to 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let cost = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if is_swap {
                    cost.min(rows[i - 2][j - 2] + 1)
                } else {
                    cost
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_that_are_swapped_or_missing_are_recognised() {
        for (name, near) in [
            ("hlep", Some("help")),
            ("cpus", Some("cpu")),
            ("pol-interval", Some("poll-interval")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(option_like(name), near, "{name}");
        }
    }
}
