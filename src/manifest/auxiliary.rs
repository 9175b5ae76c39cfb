//! Auxiliary machines: the names that controllers take, and the machines that a task
//! needs.

/// The maximum number of auxiliary machines of a task: controllers have the same.
const MAX_AUXILIARY_MACHINES: usize = 9;

/// The maximum size of the name of an environment, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Checks that the name of an auxiliary machine is `<architecture>-<rest>`.
/// Controllers refuse a whole request with another one.
pub fn check_auxiliary_name(name: &str) -> Result<(), String> {
    match name.split_once('-') {
        Some((architecture, rest)) if !architecture.is_empty() && !rest.is_empty() => Ok(()),
        _ => Err(format!(
            "'{name}' is no name of an auxiliary machine: <architecture>-<rest> expected"
        )),
    }
}

/// An auxiliary machine that a task needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuxiliaryNeed {
    /// The name of its environment; empty for one without a name.
    pub environment: String,
    /// The name of the machine.
    pub machine: String,
}

/// Reads the values `auxiliary-machine` and `auxiliary-machine-<environment>`.
pub(super) fn needs<'a>(
    values: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<AuxiliaryNeed>, String> {
    let mut needs: Vec<AuxiliaryNeed> = Vec::new();
    for (name, machine) in values {
        let environment = match name.strip_prefix("auxiliary-machine") {
            Some("") => "",
            Some(rest) if rest.starts_with('-') => &rest[1..],
            _ => continue,
        };
        if name.ends_with('-') || !(environment.is_empty() || is_environment_name(environment)) {
            return Err(format!(
                "invalid name of an auxiliary environment in {name}"
            ));
        }
        check_auxiliary_name(machine)?;
        if needs.len() == MAX_AUXILIARY_MACHINES {
            return Err(format!(
                "it needs more than {MAX_AUXILIARY_MACHINES} auxiliary machines"
            ));
        }
        if needs.iter().any(|need| need.machine == machine) {
            return Err(format!("it needs auxiliary machine {machine} twice"));
        }
        let prefix = variable_part(environment);
        if needs
            .iter()
            .any(|need| variable_part(&need.environment) == prefix)
        {
            let text = "the variables of two of its auxiliary machines would have the same names";
            return Err(format!(
                "{text}, give each an environment of its own: auxiliary-machine-<name>"
            ));
        }
        needs.push(AuxiliaryNeed {
            environment: environment.to_owned(),
            machine: machine.to_owned(),
        });
    }
    Ok(needs)
}

/// Whether a name of an environment can become the start of a variable's name.
fn is_environment_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES && is_variable_name(&variable_part(name))
}

/// The name of an environment as a part of a variable's name.
pub(super) fn variable_part(environment: &str) -> String {
    environment.replace('-', "_")
}

pub(super) fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_architecture() {
        for good in ["x86_64-linux_debian_12-postgresql_16", "a-b", "a--"] {
            assert_eq!(check_auxiliary_name(good), Ok(()), "{good}");
        }
        for bad in ["", "db", "-db", "x86_64-", "-"] {
            assert!(check_auxiliary_name(bad).is_err(), "{bad}");
        }
    }
}
