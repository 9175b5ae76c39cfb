//! Suggestions for misspelled options.

use super::flags;

/// The option whose name differs least from `name`, by two edits at most.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    flags::all()
        .flat_map(|flag| std::iter::once(flag.name).chain(flag.aliases.iter().copied()))
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(steps, known)| *steps <= 2 && *steps < known.len() / 2)
        .map(|(_, known)| known)
}

/// The number of edits that turn one name into the other: letters added, removed,
/// replaced, or swapped with the next one (optimal string alignment). `a` is input
/// and is cut to 64 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], b.as_bytes());
    // The rows of the previous two letters of `a`.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut steps = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                steps = steps.min(before[j - 2] + 1);
            }
            row.push(steps);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested() {
        for (wrong, right) in [
            ("hlep", "help"),
            ("chekc", "check"),
            ("build-rm", "build-ram"),
        ] {
            assert_eq!(similar(wrong), Some(right));
        }
        assert_eq!(similar("x"), None);
    }
}
