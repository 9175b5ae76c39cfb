//! The user that QEMU runs as, looked up as login(1) would.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::error::{Class, Context as _, Error, Result};
use crate::sys::process::Credentials;

/// The user with this name or number, with all groups: that of `/dev/kvm` may be
/// one of them.
///
/// # Errors
///
/// Of class [`Class::Config`] if there is no such user; those of reading
/// `/etc/passwd` and `/etc/group`.
pub fn credentials(name: &str) -> Result<Credentials> {
    let what = || format!("unable to look up user {name}");
    let user = match name.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    }
    .map_err(std::io::Error::from)
    .context(what)?;
    let Some(user) = user else {
        return Err(Error::new(format!("no user {name}"))
            .with_class(Class::Config)
            .hint(format!(
                "make one: useradd --system --no-create-home --groups kvm {name}"
            )));
    };
    let login = CString::new(user.name.as_str()).context(what)?;
    let groups = getgrouplist(&login, user.gid)
        .map_err(std::io::Error::from)
        .context(what)?;
    Ok(Credentials {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_and_numbers() {
        let root = credentials("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(credentials("0").unwrap(), root);
        let error = credentials("no-such-user").unwrap_err();
        assert_eq!(error.class(), Class::Config);
    }
}
