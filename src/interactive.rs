//! Interactive builds: the display of their guests, and the way for users to it.
//!
//! Each instance has a TCP address of its own for the display (`--interactive-vnc`).
//! Without one the display is the socket in the agent's run directory, which ssh(1) can
//! forward.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cli::Options;
use crate::error::{Class, Context as _, Error, Result, word};
use crate::lock;
use crate::manifest::InteractiveMode;
use crate::settings::FIRST_VNC_PORT;

/// The maximum length of a VNC password in bytes (RFC 6143, section 7.2.2).
const MAX_PASSWORD: usize = 8;

/// The remedy for an address that cannot be used.
const OTHER_ADDRESS: &str = "name another one of this host, with the port of instance 1: \
                                 --interactive-vnc <address>:<port>";

/// The path of the VNC socket. Its directory holds nothing else, since QEMU's user may
/// write to it.
pub fn vnc_path(run_dir: &Path) -> PathBuf {
    run_dir.join("vm/vnc")
}

/// The name of the agent, as controllers know it.
pub fn agent_name(options: &Options) -> Result<String> {
    if let Some(name) = &options.agent_name {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context(|| "unable to get the host name")?;
    name.into_string().map_err(|_| {
        Error::new("unable to use the host name: it is not UTF-8").hint("use --agent-name")
    })
}

/// The display of the guests of interactive builds, if it has a TCP address.
pub fn display(options: &Options) -> Option<VncAddress> {
    let mut address = options.interactive_vnc?;
    address.set_port(address.port() + options.instance.saturating_sub(1));
    Some(VncAddress {
        address,
        password: options.vnc_password.clone(),
    })
}

/// Finds out whether guests of interactive builds can have their display, if such builds
/// are taken.
pub fn probe(options: &Options) -> Result<()> {
    match display(options) {
        Some(display) if options.interactive != InteractiveMode::No => display.probe(),
        _ => Ok(()),
    }
}

/// The way for users to the guests of interactive builds.
pub fn login(options: &Options) -> Result<String> {
    let agent = agent_name(options)?;
    let port = display(options).map(|display| display.address.port());
    let socket = vnc_path(&lock::directory(
        &options.run_dir,
        &options.toolchain_name,
        options.instance,
    ));
    Ok(match (&options.interactive_login, port) {
        (Some(template), port) => {
            let port = port.unwrap_or_default();
            template.substituted(&agent, options.instance, port, &socket)
        }
        (None, Some(port)) => format!("{agent}:{port}"),
        (None, None) => format!("{agent}:{}", socket.display()),
    })
}

/// The TCP address of a guest's display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VncAddress {
    /// The address of this host that is listened on.
    pub address: SocketAddr,
    /// The file with the password. Without one everyone who reaches the address has
    /// access.
    pub password: Option<PathBuf>,
}

impl VncAddress {
    /// The address in QEMU's option `-vnc`.
    pub fn option(&self) -> String {
        let display = self.address.port().saturating_sub(FIRST_VNC_PORT);
        let password = match self.password {
            Some(_) => ",password=on",
            None => "",
        };
        match self.address.ip() {
            IpAddr::V4(ip) => format!("{ip}:{display}{password}"),
            IpAddr::V6(ip) => format!("[{ip}]:{display}{password}"),
        }
    }

    /// The error of an agent whose port another one has claimed.
    #[must_use]
    pub fn claimed(&self) -> Error {
        Error::new(format!(
            "unable to use display address {self}: an agent of another toolchain has its port"
        ))
        .with_class(Class::Config)
        .hint(OTHER_ADDRESS)
    }

    /// Finds out whether a guest can listen there.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Config`]: why not, with the remedy.
    fn probe(&self) -> Result<()> {
        let bound = TcpListener::bind(self.address);
        bound
            .context(|| format!("unable to use display address {self}"))
            .map_err(|error| error.with_class(Class::Config).hint(OTHER_ADDRESS))?;
        self.read_password().map(drop)
    }

    /// The password, if there is one.
    ///
    /// # Errors
    ///
    /// Of class [`Class::Config`]: a file that others can read, or that has no password
    /// of 1 to 8 characters.
    pub fn read_password(&self) -> Result<Option<String>> {
        let Some(path) = &self.password else {
            return Ok(None);
        };
        let what = || format!("unable to use VNC password {}", path.display());
        let write = format!("write one: (umask 077; echo <password> >{})", word(path));
        let config = |error: Error| {
            let is_missing = error.errno() == Some(nix::libc::ENOENT);
            error.with_class(Class::Config).hint(match is_missing {
                true => &write,
                false => "name another file, of the agent's user: --vnc-password <file>",
            })
        };
        // The open of a FIFO would wait for its other end.
        let metadata = fs::metadata(path).context(what).map_err(config)?;
        if !metadata.is_file() {
            return Err(config(Error::new(format!("{}: not a file", what()))));
        }
        let file = File::open(path).context(what).map_err(config)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Error::new(format!("{}: others can read it", what()))
                .with_class(Class::Config)
                .hint(format!(
                    "let its owner alone read it: chmod 600 {}",
                    word(path)
                )));
        }
        let mut text = String::new();
        let read = file.take(MAX_PASSWORD as u64 + 2).read_to_string(&mut text);
        read.context(what).map_err(config)?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let is_good = (1..=MAX_PASSWORD).contains(&password.len())
            && password.bytes().all(|c| c.is_ascii_graphic());
        if !is_good {
            let why = "it is not one line of 1 to 8 printable characters without blanks";
            let error = Error::new(format!("{}: {why}", what()));
            return Err(error.with_class(Class::Config).hint(write));
        }
        Ok(Some(password.to_owned()))
    }
}

impl fmt::Display for VncAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_display_number() {
        let option = |address: &str, password: Option<&str>| {
            VncAddress {
                address: address.parse().unwrap(),
                password: password.map(PathBuf::from),
            }
            .option()
        };
        assert_eq!(option("127.0.0.1:5900", None), "127.0.0.1:0");
        assert_eq!(option("[::1]:5917", Some("/p")), "[::1]:17,password=on");
    }

    #[test]
    fn a_password_is_of_its_owner_and_short() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("bbot-agent-vnc-{}", std::process::id()));
        let read = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            VncAddress {
                address: ([127, 0, 0, 1], FIRST_VNC_PORT).into(),
                password: Some(path.clone()),
            }
            .read_password()
            .map_err(|error| error.to_string())
        };
        assert_eq!(read("12345678\n", 0o600), Ok(Some("12345678".to_owned())));
        for (text, mode, why) in [
            ("secret", 0o640, "others can read it"),
            ("", 0o600, "it is not one line"),
            ("\n", 0o600, "it is not one line"),
            ("123456789\n", 0o600, "it is not one line"),
            ("a b", 0o600, "it is not one line"),
            ("a\nb", 0o600, "it is not one line"),
        ] {
            let error = read(text, mode).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        fs::remove_file(&path).unwrap();
        let of = |path: &str| {
            let address = ([127, 0, 0, 1], FIRST_VNC_PORT).into();
            let password = Some(PathBuf::from(path));
            let error = VncAddress { address, password }.read_password();
            let error = error.unwrap_err();
            format!("{error} {:?}", error.hints().collect::<Vec<_>>())
        };
        let other = "name another file, of the agent's user: --vnc-password <file>";
        let directory = format!("unable to use VNC password /tmp: not a file [{other:?}]");
        assert_eq!(of("/tmp"), directory);
        assert!(of("/nowhere/password").contains("write one: "));
    }
}
