//! Choices of the operator that the command line and the modules share.

use std::path::Path;
use std::time::Duration;

/// The way in which a guest's requests to 196.254.111.222 port 69 reach the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectKind {
    /// Rules of `nf_tables`; without them, an address of the bridge.
    #[default]
    Auto,
    /// Rules of `nf_tables`.
    Nft,
    /// No redirect: 196.254.111.222 is an address of the bridge.
    None,
}

/// The accelerator that the operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccelChoice {
    /// KVM; a host without a usable one is an error.
    #[default]
    Kvm,
    /// Emulation.
    Tcg,
    /// KVM where a guest runs under it, else emulation.
    Auto,
}

/// The proxies on the way to controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyChoice {
    /// The proxy for `http:` URLs.
    pub http: Option<String>,
    /// The proxy for `https:` URLs.
    pub https: Option<String>,
    /// The hosts that are reached without one, as in `no_proxy`.
    pub exceptions: String,
}

/// The time for which a failed guest is kept, suspended, for inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// This long; zero means not at all.
    For(Duration),
    /// Until the operator ends it.
    Forever,
}

impl Default for Hold {
    fn default() -> Hold {
        Hold::For(Duration::ZERO)
    }
}

/// The first TCP port of VNC (RFC 6143, section 8): QEMU counts displays from it.
pub const FIRST_VNC_PORT: u16 = 5900;

/// The way for a user to the guest of an interactive build: a text in which `%h` stands
/// for the agent's name, `%i` for its instance, `%p` for the port of the display, `%s`
/// for its socket, and `%%` for a percent sign.
///
/// A controller shows it before there is a guest, so it follows from the options alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTemplate(String);

impl LoginTemplate {
    /// Takes a text; `None` if a `%` in it has no meaning.
    pub fn parse(text: &str) -> Option<LoginTemplate> {
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            if c == '%' && !"hips%".contains(characters.next()?) {
                return None;
            }
        }
        Some(LoginTemplate(text.to_owned()))
    }

    /// Whether the substitution `%<letter>` is in it.
    pub fn has(&self, letter: char) -> bool {
        self.0.replace("%%", "").contains(&format!("%{letter}"))
    }

    /// The text with its substitutions.
    pub fn substituted(&self, agent: &str, instance: u16, port: u16, socket: &Path) -> String {
        let mut text = String::new();
        let mut characters = self.0.chars();
        while let Some(c) = characters.next() {
            match if c == '%' { characters.next() } else { None } {
                None => text.push(c),
                Some('h') => text.push_str(agent),
                Some('i') => text.push_str(&instance.to_string()),
                Some('p') => text.push_str(&port.to_string()),
                Some('s') => text.push_str(&socket.to_string_lossy()),
                Some(other) => text.push(other),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_host_instance_and_display() {
        let socket = Path::new("/run/bbot-agent/default-2/vm/vnc");
        for (template, text) in [
            ("%h:%p", "build1:5901"),
            (
                "ssh -L 5900:%s %h # %i, 100%%",
                "ssh -L 5900:/run/bbot-agent/default-2/vm/vnc build1 # 2, 100%",
            ),
        ] {
            let template = LoginTemplate::parse(template).unwrap();
            assert_eq!(template.substituted("build1", 2, 5901, socket), text);
        }
        assert!(LoginTemplate::parse("%h:%p").unwrap().has('p'));
        assert!(!LoginTemplate::parse("%%p").unwrap().has('p'));
        for wrong in ["%", "%x", "100% of it", "%h %"] {
            assert_eq!(LoginTemplate::parse(wrong), None, "{wrong}");
        }
    }
}
