//! Choices of the operator that the command line and the modules share.

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
